"""Bundle -> image, on the device: numpy and one engine library, nothing else of ours.

pipeline.py          what the user holds: prompts and settings in, images out
settings.py          what a caller asks for, checked against the bundle
prompt_tokenizer.py  prompt -> token ids
context.py           the output of a user's own text model
pictures.py          the encoder's square of a picture, and a picture of the decoder's pixels
picture_metadata.py  how a picture was drawn, in its PNG file
random.py            the one stream of randomness
fill.py              fills inputs, settings, constants and noise
turns.py             one picture at a time, where a pipeline can draw no more
kept_prompts.py      what depends on a prompt alone, of the last prompts
spare_block.py       memory that stays between two pictures
loop.py              the loop: executes the plan, step by step
allocator.py         gives freed memory back to the system
"""
