"""INT8: from activations to ranges, and from ranges to a target's scheme.

prompts.txt    what the loop is run on
collect.py     activations of the real loop -> ranges, once
ranges.py      the ranges' file
schemes.py       which scheme of INT8 each component takes on each target: here INT8 is decided
quantize.py    writes a scheme into a graph
"""
