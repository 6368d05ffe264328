"""TensorRT and TensorRT-RTX: engines are built ahead of their use, and run on the GPU."""
