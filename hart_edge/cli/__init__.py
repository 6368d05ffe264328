"""The command line: one file a command, each with its arguments and what it does, all of it printed.

main.py              assembles the commands, calls one, and turns what it raises into an exit status
streams.py           standard output and error, whatever they are connected to
signals.py           SIGTERM and SIGHUP, which end a command as Ctrl-C does
command.py           how every command begins
generate.py          prompts in, PNG files out
batch.py             a file of prompts in, a folder of pictures out
serve.py             bundles in, a server out
encode.py            prompts in, the contexts that a text model makes of them out
info.py              what a bundle holds; macs.py: the arithmetic of a checkpoint, by its option --macs
plan.py              how much memory a bundle takes
costs.py             what its steps take, for plan and bench
bench.py             how fast bundles draw
golden.py            a checkpoint or a bundle against golden records
reconstruct.py       a picture in, the same through encoder and decoder out
import_checkpoint.py  a published model's repositories in, a checkpoint out
build.py             a checkpoint in, a bundle out; upgrade.py: the same for a bundle of an earlier format
calibrate.py         a checkpoint in, its INT8 ranges out
engines.py           a portable bundle in, a bundle of engines out
doctor.py            what this machine can use; gpu_check.py: its GPU against ONNX Runtime, by its option --gpu-check
data.py              makes a training set
train.py             trains a part of a checkpoint
eval.py              measures checkpoints and bundles; eval_report.py lays out their figures
values.py            values of options, read from text: sizes, threads, integers of a range
engine_options.py    what engines are built for: options of build and engines
setting_options.py    how codes are drawn: options of generate, eval and build
instruction_options.py  what stands in front of every prompt: options of build and calibrate
calibration_options.py  what ranges are made of: options of build and calibrate
progress.py          what commands show while they work
tables.py            how commands lay out what they print
"""
