"""The bundle: the folder that a build writes and a device runs, read, verified and written here and nowhere else."""
