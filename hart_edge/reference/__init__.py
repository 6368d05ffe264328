"""The reference HART in PyTorch: what the published weights compute, in readable float32.

text.py          prompt -> context            (a Hugging Face text model)
transformer.py   context, scales -> hidden states and logits, with a KV cache
sampling.py      logits -> codes
quantizer.py     codes -> latent, scale by scale; image latent -> codes
residual.py      hidden states -> what the codes cannot express
autoencoder.py   latent <-> image
hart.py          the loop over all of them
checkpoint.py    the published folder layout, and the only file that knows its key names
"""
