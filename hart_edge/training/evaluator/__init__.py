"""Training of the judge of `hart-edge eval`.

recipe.py  its recipe, how its pictures vary, and its loss
task.py    the same as a task for the loop, with its data
"""
