"""Graphs are held against what TensorRT takes, where TensorRT cannot be installed."""
