"""ONNX Runtime: the engine library of the targets cpu and cuda. The graph itself is the engine."""
