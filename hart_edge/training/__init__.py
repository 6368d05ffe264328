"""Train HART's networks from a recipe, so that everything the product needs can be trained again.

loop.py         one loop for every network: gradients, average of weights, journal, checkpoints, interruption
recipe.py       one JSON file -> dataclasses, every value checked
captions.py     captions -> ids -> context: a tokenizer and a small text model of its own
order.py        which examples a step sees, and its random numbers: functions of the seed and the step alone
schedule.py     the learning rate of a step
optimizer.py    AdamW, or Muon for the matrices of layers
average.py      the moving average of weights that is published
checkpoints.py  states on disk, kept and checked
journal.py      what a run says while it runs
errors.py       TrainingError, for what a user can put right
tokenizer/      the hybrid autoencoder with its losses and its codebook, as a task for the loop
transformer/    the generator with its losses, the data it learns from, as a task for the loop
evaluator/      the judge of `hart-edge eval`, as a task for the loop
"""
