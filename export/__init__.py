"""Reference model -> ONNX graphs -> bundle.

chain.py          build() and calibrate_checkpoint(): the stages, one after the other
stages/           the stages of a build, each a function from results to a result
options.py        what a build is asked for, and what it tells while it runs
tools.py          the functions that a build does its work with, for tests to replace
graph_module.py   what every traceable graph is: a module, and the specification of its inputs and outputs
graphs.py         all graphs of a model, one traceable module each
text_graph.py     the text model, with the instruction as a constant
token_graphs.py   from a context to codes: the prompt's tokens, the blocks, the choice
latent_graphs.py  from codes to the latent and the next scale's tokens, and the residual
image_graphs.py   from the latent to a picture, and back
unconditional.py  the unconditional branch of scale 0, which depends on no prompt
onnx_export.py    traces a module into an ONNX model
stamp.py          copies the first block of a traced transformer for every other one
plan_builder.py   the execution plan that connects the graphs
costs.py          what every step of a plan takes, counted in its graphs; activations.py: its bytes
run_plan.py       runs a plan by the runtime's loop, with the reference's modules or with traced graphs
parity/           compares every graph with the reference, on the inputs of the real loop
tensorrt_lint/    checks graphs against what TensorRT takes
build.py          the door of `python -m export.build`
"""

import sys

if __name__ == "export":  # `python -m export.build` in the checkout: this package and hart_edge.export are one module
    import hart_edge.export

    sys.modules[__name__] = hart_edge.export
