"""A checkpoint from its repositories: llm/ and tokenizer/ of one, the text model of another, and the instruction.

In: two folders and a text. Out: a folder in the layout that a build reads, of links or copies, with a record of where
everything came from. What a build would refuse at first sight is refused here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hart_edge.bundle.files import sha256_of
from hart_edge.errors import CheckpointError, bordered
from hart_edge.reference.checkpoint import LLM_WEIGHTS, SAMPLING_FILE, TOKENIZER_WEIGHTS, read_config
from hart_edge.reference.config import read_tokenizer_config, read_transformer_config
from hart_edge.reference.hub import Source
from hart_edge.reference.instruction import INSTRUCTION_FILE
from hart_edge.reference.text_weights import TEXT_WEIGHTS, TOKENIZER_FILE
from hart_edge.reference.weight_files import find_weights, require_fetched
from hart_edge.staging import staged_folder, take_name

RECORD_FILE = "import.json"
TEXT_FOLDER = "text_model"
PARTS = {"tokenizer": TOKENIZER_WEIGHTS, "llm": LLM_WEIGHTS}
BESIDE = (SAMPLING_FILE, "licences.json")  # of the first repository, where it has them

Say = Callable[[str], None]


@dataclass(frozen=True)
class Assembled:
    """instruction: how many characters it has, 0 for none; size: bytes of all files."""

    folder: Path
    files: int
    size: int
    instruction: int


@bordered(
    CheckpointError, "cannot be put together", "name another --out; nothing was written", subject="the checkpoint"
)
def assemble(
    hart: Source, text_model: Source, instruction: str, instruction_from: str, out: Path, *, copy: bool, say: Say
) -> Assembled:
    """Write the checkpoint `out`. instruction: "" for none; instruction_from: what the record says of it; copy: copies
    in place of links. Raises CheckpointError; then nothing is written. An earlier import at `out` is replaced."""
    _require_free(out)
    files = dict(_files(hart.folder, text_model.folder))
    width = read_transformer_config(read_config(hart.folder / "llm")).context_dim
    read_tokenizer_config(read_config(hart.folder / "tokenizer"))
    _require_width(text_model.folder, width)
    hashes: dict[str, dict[str, Any]] = {}
    with staged_folder(out) as staging:
        for name, source in files.items():
            say(f"{'copying' if copy else 'reading'} {name}")
            require_fetched(source)
            target = staging / name
            target.parent.mkdir(exist_ok=True)
            if copy:
                shutil.copyfile(source, target)
            else:
                target.symlink_to(Path(os.path.abspath(source)))
            hashes[name] = {"bytes": target.stat().st_size, "sha256": sha256_of(target)}
        if instruction:
            name = f"{TEXT_FOLDER}/{INSTRUCTION_FILE}"
            (staging / name).write_bytes(instruction.encode())
            hashes[name] = {"bytes": (staging / name).stat().st_size, "sha256": sha256_of(staging / name)}
        record = {
            "hart": {"source": hart.name, "revision": hart.revision},
            "text_model": {"source": text_model.name, "revision": text_model.revision},
            "instruction": {"source": instruction_from} if instruction else None,
            "files": hashes,
        }
        (staging / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        take_name(staging, out)
    return Assembled(out, len(hashes), sum(each["bytes"] for each in hashes.values()), len(instruction))


def _require_free(out: Path) -> None:
    if out.is_dir() and (not any(out.iterdir()) or (out / RECORD_FILE).is_file()):
        return
    if out.exists() or out.is_symlink():
        raise CheckpointError(
            f"{out}: expected a new folder, or an earlier import to replace, found something else; name another --out"
        )


def _files(hart: Path, text_model: Path) -> Iterator[tuple[str, Path]]:
    """Every file of the checkpoint by its path in there. Raises CheckpointError where a part is missing."""
    for part, names in PARTS.items():
        if not (hart / part).is_dir():
            found = ", ".join(sorted(path.name for path in hart.iterdir())) or "nothing"
            raise CheckpointError(
                f"{hart}: expected llm/ and tokenizer/, found {found}; name the folder that holds them, which is the "
                "whole repository of the published model"
            )
        weights = find_weights(hart / part, names)
        for path in dict.fromkeys((hart / part / "config.json", weights.path, *weights.files)):
            yield f"{part}/{path.name}", path
    weights = find_weights(text_model, TEXT_WEIGHTS)
    own = [text_model / name for name in ("config.json", TOKENIZER_FILE, "tokenizer_config.json")]
    for path in dict.fromkeys((*own, weights.path, *weights.files)):
        if not path.is_file():
            hint = "; load it with AutoTokenizer of transformers and save_pretrained() it" if path in own[1:] else ""
            raise CheckpointError(f"{path}: expected this file of the text model, found none{hint}")
        yield f"{TEXT_FOLDER}/{path.name}", path
    for name in BESIDE:
        if (hart / name).is_file():
            yield name, hart / name


def _require_width(text_model: Path, width: int) -> None:
    """Refuse a text model of another width than the transformer reads, as far as its config.json says one."""
    config = read_config(text_model)
    nested = config.get("text_config")
    found = (nested if isinstance(nested, dict) else config).get("hidden_size", width)
    if found != width:
        raise CheckpointError(
            f"{text_model}/config.json: expected hidden_size {width}, the context_dim of llm/config.json, found "
            f"{found}; use the text model that the transformer was trained with"
        )
