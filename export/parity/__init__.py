"""Every graph against the reference, on the inputs of the real loop. stages/check.py puts these together.

recording.py    the reference's calls, kept in memory and in files
sessions.py     the graphs that are compared, opened when they are needed
compare.py      the error of a call, and the tolerance of a graph
quality.py      logits per scale and the picture, as figures
contexts.py     how near a 4-bit text model comes, by cosines and by the logits downstream
limits.py       the figures against their limits
worst_layer.py  which layer makes most of the error of a graph that is refused
"""
