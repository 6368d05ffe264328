"""The real loop is run on prompts, and its activations become ranges.

prompts.py         the prompts: those of prompts.txt, or the user's own
graph_outputs.py   gives a graph further outputs: extremes, means and a few rows of its tensors
instrumented.py    runs the graphs with those outputs
collector.py       every call of the loop -> statistics of every tensor
statistics.py      what is remembered of a tensor
range_rules.py     statistics -> a range, by one of four rules
smoothing.py       statistics -> ranges of whole layers, with outliers moved into the weights
channel_ranges.py  statistics -> ranges of convolutions, each channel with its own
ranges.py          the ranges and their file
overflow.py        which tensors come too near the end of FP16
"""
