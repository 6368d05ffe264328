"""Writes the seeds of the fuzzers into corpus/, beside the findings that are kept there; run with `python -m`.

The name of a seed begins with `seed-`; a finding keeps the name that libFuzzer gave it.
"""

import json
import tempfile
from pathlib import Path

from tests.bundle.make_bundle import give_engines, make_bundle
from tests.runtime.native import tokenizer_files
from tests.runtime.native.robustness.context_bundle import make_context_bundle

CORPUS = Path(__file__).parent / "corpus"

TEXTS = {
    "english": "a red heart, it's  12 o'clock",
    "scripts": "Ein Äpfel für 3½ € 日本語 한국어 العربية हिन्दी ไทย",
    "emoji": "👩‍🚀 😀🏽 🏳️‍🌈",
    "marks": "e\u0301 E\u0301 \u1e9b\u0323 \uac00\u11a8 ſ ß İ ﬁ",
    "spaces": " \t a\u00a0b\u2003c\u3000 \r\n\n  d \x1c\x85 ",
    "added": "  <l>  <r>  <l><r> É  E\u0301 x<l>É <r> ",
    "merges": "abc abcab aaaaaaaa aaaaa ab",
    "edges": "\U0010ffff\ud7ff\ue000\x00\x7f\uffff",
}


def seeds() -> dict[str, bytes]:
    """FUZZER/NAME -> the bytes of the seed."""
    with tempfile.TemporaryDirectory() as folder:
        prompts = make_bundle(Path(folder) / "prompts")
        contexts = make_context_bundle(Path(folder) / "contexts")
        found = {
            "manifest/prompts": (prompts / "manifest.json").read_bytes(),
            "manifest/contexts": (contexts / "manifest.json").read_bytes(),
        }
        found |= {f"graph/{path.stem}": path.read_bytes() for path in sorted((prompts / "graphs").glob("*.onnx"))}
        give_engines(prompts)
        found["manifest/engines"] = (prompts / "manifest.json").read_bytes()
    files = {
        "qwen2": tokenizer_files.small(),
        "flagged": tokenizer_files.small(added_tokens=tokenizer_files.FLAGGED),
        "bytes": json.loads(tokenizer_files.of_bytes(tokenizer_files.NFC)),
        "lowercase": json.loads(
            tokenizer_files.of_bytes(tokenizer_files.LOWER, tokenizer_files.split(tokenizer_files.GPT2))
        ),
        "letters": {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}},
    }
    found |= {f"tokenizer_file/{name}": json.dumps(file).encode() for name, file in files.items()}
    for which in range(3):
        found |= {f"tokenizer/{which}-{name}": bytes([which]) + text.encode() for name, text in TEXTS.items()}
    found["tokenizer/0-cut"] = b"\0a\xf0\x9f\x98"
    return found


if __name__ == "__main__":
    for name, data in seeds().items():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / f"seed-{path.name}").write_bytes(data)
