"""A graph takes on its scheme: INT8 and FP16 are written into it."""
