"""TensorRT and TensorRT-RTX: engines are built ahead of their use, and run on the GPU.

facts.py           what the two libraries and the GPUs can do, as data
entry.py           their entries in the registry
builder.py         a graph -> an engine file and a report, in a process of its own
worker.py          that process
report.py          what became of every node, read from the library's log
compatibility.py   whether this machine can run a bundle's engines, by the manifest
library.py         the library, opened: engines and execution contexts
device.py          the architecture of this machine's GPU, asked of the driver
cuda.py            memory, copies, one stream, graphs
capture.py         steps that repeat become a CUDA graph
runner.py          the engines of a bundle: a picture, all of it on the device
"""
