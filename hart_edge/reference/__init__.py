"""The reference HART in PyTorch: what the published weights compute, in readable float32.

text_model.py    prompt ids -> context            (a Hugging Face text model)
transformer.py   context, scales -> hidden states and logits, with a KV cache
sampling.py      logits -> codes
quantizer.py     codes -> latent, scale by scale; image latent -> codes
dial.py          what a speed leaves out
selection.py     which tokens a speed keeps, and where what they make goes
residual.py      hidden states -> what the codes cannot express
autoencoder.py   latent <-> image
hart.py          the loop over all of them
noise.py         the runtime's random numbers as tensors
draw.py          seeds -> latents or pictures, by the loop and that noise
config.py        the architecture as config.json states it: the dataclasses that every module is built from
checkpoint.py    the published folder layout, and the only file that knows its key names
weight_files.py  files of weights, whole or in shards, and whether they fit a module
text_weights.py  the network of text_model/, every tensor by name and shape
instruction.py   the instruction in front of every prompt, from a text or a Python file
hub.py           a folder, or a repository of a model hub that a user names
assemble.py      a checkpoint from its repositories
pack.py          a checkpoint -> the same in FP16, for shipping
random_text.py   a text model of a published shape with random weights
presets.py       the model that comes along, and published shapes without weights
"""
