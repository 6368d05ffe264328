"""Training of the transformer, the residual MLP and the text model.

recipe.py           their recipe, and one step's losses
setup.py            data and autoencoder in, the task out
task.py             the task for the loop
codes.py            pictures -> codes, computed once and kept
self_correction.py  codes of earlier scales shown wrong
teacher_forcing.py  one pass over the tokens of all scales
residual_loss.py    the loss of the residual diffusion MLP
start.py            the first weights: random ones, or a checkpoint's
"""
