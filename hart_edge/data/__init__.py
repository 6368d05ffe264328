"""Training data: folders of pictures with captions.

pictures.py reads any such folder into memory-mapped arrays; emoji.py makes one from public packages. Training reads
nothing else.
"""
