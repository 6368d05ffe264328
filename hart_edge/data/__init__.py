"""Training data: folders of pictures with captions. Training reads nothing else.

pictures.py    a folder of pictures with captions -> memory-mapped arrays
depth.py       pictures of 16 and 32 bits and of floating point -> 8 bits
metadata.py    the captions, groups and weights that such a folder states
emoji.py       makes such a folder from public packages
packages.py    the packages that it is made from, pinned, fetched and checked
drawings.py    their drawings -> square pictures
names.py       their names and keywords -> captions
duplicates.py  pictures that look alike, so that none is in two splits
splits.py      which pictures are for training, validation and test
errors.py      DataError, for what a user can put right
"""
