"""Reference model -> ONNX graphs -> bundle.

chain.py          build(): the stages of a build, one after the other
stages/           the stages themselves
options.py        what a build is asked for, and what it tells while it runs
graphs.py         one traceable module per graph, and its specification
unconditional.py  the unconditional branch of scale 0, which depends on no prompt
onnx_export.py    traces a module into an ONNX model; stamp.py gives its nodes their names
plan.py           the execution plan that connects the graphs
parity/           holds every graph against the reference, on the inputs of the real loop
tensorrt_lint/    holds graphs against what TensorRT takes
build.py          the door of `python -m export.build`
"""

import sys

if __name__ == "export":  # `python -m export.build` in the checkout: this package and hart_edge.export are one module
    import hart_edge.export

    sys.modules[__name__] = hart_edge.export
