"""Checks of what is there: golden records, engines on a GPU, speed, memory, arithmetic.

golden.py          a picture drawn again, held against a golden record
golden_bundle.py   the small bundle that golden records are made with
golden_records.py  golden records as files
gpu_parity.py      engines held against ONNX Runtime, graph by graph and picture by picture
gpu_timing.py      how long engines take on the device
gpu_mix.py         INT8 engines with FP16 ones in the place of those that INT8 does not make faster
macs.py            multiply-accumulates of the reference, by component and scale
bench/             seconds and memory of a picture, in a process of its own
"""
