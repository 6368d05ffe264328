"""Reduced precision: from activations to ranges, and from ranges to the scheme of each component on each target.

scheme.py               which scheme each component takes on each target: here FP16 and INT8 are decided
quantizable_nodes.py    where a graph can hold INT8
graph_files.py          graphs on disk, their weights inside or beside them
calibrate/              runs the real loop and makes ranges of its activations
rewrite/                writes a scheme into a graph
select/                 picks schemes and layers by measurement
"""
