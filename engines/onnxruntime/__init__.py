"""ONNX Runtime: the engine library of the targets cpu and cuda. It runs the graphs themselves.

entry.py     its entries in the registry
library.py   loading it for a target, its options, and OnnxRuntimeLibrary, with which builds check graphs
session.py   a graph, opened and run; exceptions become EngineError
prepared.py  graphs as they are once they are open, in files that are mapped
runner.py    the graphs of a bundle, for the loop that draws
"""
