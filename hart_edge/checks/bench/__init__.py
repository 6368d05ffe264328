"""How fast a bundle draws, beside others and beside the reference: `hart-edge bench`.

measure.py    one bundle, or the reference, in the process that calls it: times of pictures and steps, peak memory
peak.py       what this machine's matrix products reach at best, in float32 and in INT8; onnx_bytes.py writes them
report.py     all of it, each measurement in a process of its own, as one dictionary and as tables
"""
