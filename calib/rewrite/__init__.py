"""A scheme is written into a graph: FP16 and INT8 tensors, and the nodes that convert them.

apply.py            a graph and its scheme -> the rewritten graph
int8.py             writes INT8 weights and activations
convolutions.py     writes INT8 convolutions with ranges per channel
int4.py             writes 4-bit weights in blocks
int8_numbers.py     scales, zero points and integers
fp16.py             writes FP16 tensors
attention_parts.py  attention of some heads at a time, for graphs that are run in place of a GPU
kv_cache.py         makes the KV cache FP16 in a graph that computes in float32
nodes.py            new nodes, and a new list of them for a graph
"""
