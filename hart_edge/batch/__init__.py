"""Many pictures: a file of prompts in, a folder of pictures with captions out, in this process or on Ray.
docs/batch.md.

prompts.py  a file of prompts -> what is to be drawn
folder.py   the folder: which pictures are there, and those that come
drawing.py  a picture of a batch, and a batch in this process
on_ray.py   a batch on Ray: an actor pool, a pipeline in each actor
"""
