"""The tiny bundle with a prompt tokenizer that both runtimes read: byte-level BPE of the letters a to z."""

import json
from pathlib import Path

from tests.bundle.corrupt_bundles import relist
from tests.bundle.make_bundle import make_bundle

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make_letters_bundle(folder: Path) -> Path:
    """Write the bundle of make_bundle.py into `folder`; every letter is a token, other characters are dropped."""
    make_bundle(folder)
    vocabulary = {"<pad>": 0, **{letter: index for index, letter in enumerate(LETTERS, 1)}}
    definition = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    relist(folder, "tokenizer.json")
    return folder
