"""Bundle -> image, on the device: numpy and one engine library, nothing else of ours.

text.py          prompt -> token ids
bundle.py        opens and verifies a bundle; manifest.py and plan.py read it
random.py        the one stream of randomness
loop.py          the loop: executes the plan, step by step
onnxruntime.py   runs a step with ONNX Runtime
fill.py          fills inputs, settings, constants and noise
pipeline.py      what the user holds: prompts and settings in, images out
"""
