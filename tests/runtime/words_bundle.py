"""The tiny bundle with a working prompt tokenizer, whose words are w1 to w31."""

import json
from pathlib import Path

from tests.bundle.corrupt_bundles import relist
from tests.bundle.make_bundle import IDS, make_bundle


def make_words_bundle(folder: Path) -> Path:
    """Write the bundle of make_bundle.py into `folder`; the padding token is 0 and has no word."""
    make_bundle(folder)
    vocabulary = {"<pad>": 0, **{f"w{i}": i for i in range(1, IDS)}}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<pad>"}
    definition = {"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    relist(folder, "tokenizer.json")
    return folder
