"""Training of the hybrid autoencoder, which is published as tokenizer/.

recipe.py    its recipe, and one step's reconstruction and losses
task.py      the same as a task for the loop
losses.py    what makes a reconstruction good
quantize.py  the quantiser's arithmetic with a loss and a gradient
codebook.py  codes placed on data, and replaced where nothing chooses them
critic.py    the optional adversarial loss
"""
