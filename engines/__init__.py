"""Engine libraries: how a graph is checked, becomes an engine, and runs.

base.py           the entry of a library in the registry, and the protocols behind it
registry.py       which library serves which target; what this machine can use
loading.py        load(): a bundle's folder -> a pipeline
bundle_build.py   a bundle of graphs -> a bundle of engines
profiles.py       the shapes that an engine is built for: one profile a scale
forks.py          what an engine library holds does not survive a fork
machine.py        the platform of this machine, as manifests name it
onnxruntime/      ONNX Runtime, for the targets cpu and cuda: runs graphs as they are
tensorrt/         TensorRT and TensorRT-RTX: engines that are built ahead of their use and run on a GPU

docs/adding-an-engine.md lists what a further library touches.
"""
