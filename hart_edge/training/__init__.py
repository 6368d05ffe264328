"""Training: pictures and captions -> a checkpoint in the published layout.

recipe.py          what a run is, as data: read from JSON, compared when a run is resumed
loop.py            the loop that every model is trained by; schedule.py, average.py, order.py are its parts
checkpoints.py     the state of a run on disk, written atomically, and the weights in the published layout
journal.py         the log line of the minute, TensorBoard, sample sheets
tokenizer.py       the hybrid tokenizer with its losses; quantize.py, losses.py, critic.py are its parts
tokenizer_task.py  the same as a task for the loop; codebook.py keeps its codes alive
reconstruction.py  how well pictures come back: PSNR, SSIM, codes in use
transformer.py     the generator with its losses; transformer_pass.py, transformer_residual.py are its parts
transformer_task.py   the same as a task; transformer_codes.py makes its data, transformer_start.py its first weights
transformer_setup.py  data and tokenizer in, that task out
evaluator.py       the judge of hart-edge eval with its loss; evaluator_task.py the same as a task, with its data
text.py            captions -> ids -> context: a tokenizer and a small text model of its own
"""
