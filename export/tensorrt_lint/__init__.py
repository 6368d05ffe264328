"""Graphs are checked against what TensorRT takes, where TensorRT cannot be installed.

lint.py   the findings of a graph
rules.py  operators, types and inputs that its parser reads; limits by version are in engines/tensorrt/facts.py
"""
