"""Reference model -> ONNX graphs -> bundle.

graphs.py        one traceable module per graph, and its specification
onnx_export.py   traces a module into an ONNX model
plan.py          the execution plan that connects the graphs
parity.py        holds every graph against the reference, on the real loop's own inputs
bundle.py        writes the bundle folder; card.py its model card
build.py         `python -m export.build`; options.py says what it is asked for
engine_stage.py  the bundle of graphs becomes one of engines; lint_tensorrt.py holds graphs against TensorRT's rules
"""
