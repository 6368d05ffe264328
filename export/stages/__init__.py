"""The stages of a build, in their order: each a function from the results before it to a frozen result.

context.py      what every stage is given besides: options, engine library, tools, and whom to tell
read.py         a checkpoint and the inputs that its graphs are run on
trace.py        every graph as an ONNX file, and the plan
prove.py        the weights in the graphs against the files of the checkpoint, tensor by tensor
record.py       the reference's calls on the parity prompts
calibrate.py    the ranges of INT8
decide.py       what every component becomes
int8_choice.py  part of it: INT8 schemes, by time and by error
overflow.py     part of it: tensors that FP16 may not hold
write.py        every graph in its scheme
check.py        the traced and the written graphs against the reference
finish.py       constants, tokenizer, card and manifest
engines.py      engines from the finished bundle of graphs, for targets that have them
"""
