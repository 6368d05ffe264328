"""A checkpoint in the published layout -> the same layout for shipping: FP16 safetensors, moving average only.

In: a folder that load_checkpoint reads. Out: a folder that load_checkpoint and load_text_model read, without the
tensors and settings that only training needs. The first step of shipping a model; export/ starts from its result.

    python -m hart_edge.reference.pack SRC DST
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from hart_edge.errors import CheckpointError, bordered
from hart_edge.reference.checkpoint import (
    IGNORED_LLM,
    IGNORED_TOKENIZER,
    SAMPLING_FILE,
    TOKENIZER_WEIGHTS,
    load_checkpoint,
)
from hart_edge.reference.weight_files import find_weights, read_json
from hart_edge.staging import staged_folder, take_name

log = logging.getLogger(__name__)

EMA_WEIGHTS = ("ema_model.safetensors", "ema_model.bin")
TEXT_WEIGHTS = ("model.safetensors",)
TEXT_FILES = ("tokenizer.json", "tokenizer_config.json")  # and prompt.txt, where the model has an instruction
IGNORED_TEXT = re.compile(r"\.inv_freq$")
KEPT_NAMES = ("README.md", "LICENSE", "licences.json", SAMPLING_FILE)  # a destination's own stay
PACKED_NAMES = {"tokenizer", "llm", "text_model", *KEPT_NAMES}


@dataclass(frozen=True)
class PackedFile:
    """A file of the packed checkpoint: its path inside the folder and its size in bytes."""

    path: str
    size: int


@bordered(CheckpointError, "cannot be packed", "nothing was written; mend what is wrong and try again")
def pack(source: str | Path, destination: str | Path) -> tuple[PackedFile, ...]:
    """Write the checkpoint `source` to `destination` as FP16 safetensors; returns the files written.

    A destination that already holds a packed checkpoint is replaced as a whole but for KEPT_NAMES. Each weight file
    records in its metadata which file it was made of, by name and SHA-256. Raises CheckpointError when the source is
    incomplete, has no moving average, or holds a value that FP16 cannot, and when the destination holds anything else;
    then nothing is written.
    """
    source, destination = Path(source), Path(destination)
    if source.resolve() == destination.resolve():
        raise CheckpointError(f"{destination}: is the checkpoint to pack; choose another destination")
    if destination.exists():
        found = [path.name for path in destination.iterdir()] if destination.is_dir() else ["a file"]
        if foreign := sorted(set(found) - PACKED_NAMES):
            raise CheckpointError(
                f"{destination}: expected nothing, or a packed checkpoint to replace, found {', '.join(foreign)}; "
                "choose another destination"
            )
    has_text_model = load_checkpoint(source).has_text_model  # refuses what does not fit its config.json, by name
    with staged_folder(destination) as staging:
        _pack_part(source / "tokenizer", TOKENIZER_WEIGHTS, IGNORED_TOKENIZER, staging / "tokenizer")
        _pack_part(source / "llm", EMA_WEIGHTS, IGNORED_LLM, staging / "llm", name="ema_model.safetensors")
        if has_text_model:
            _pack_part(source / "text_model", TEXT_WEIGHTS, IGNORED_TEXT, staging / "text_model")
            _copy_text_files(source / "text_model", staging / "text_model")
        for name in KEPT_NAMES:
            for kept in (destination / name, source / name):
                if kept.is_file():
                    shutil.copyfile(kept, staging / name)
                    break
        take_name(staging, destination)
    files = sorted(path for path in destination.rglob("*") if path.is_file())
    return tuple(PackedFile(path.relative_to(destination).as_posix(), path.stat().st_size) for path in files)


def to_fp16(name: str, tensor: Tensor, path: Path) -> Tensor:
    """A tensor in float16; CheckpointError, naming it, where a value does not fit. Integers stay as they are."""
    if not tensor.is_floating_point():
        return tensor.contiguous()
    fp16 = tensor.to(torch.float16)
    outside = ~fp16.isfinite()
    if outside.any():
        worst = tensor[outside].flatten()[0].item()
        raise CheckpointError(
            f"{path}: {name}: expected values that FP16 holds (up to 65504), found {worst:g} "
            f"({int(outside.sum())} of {tensor.numel()} do not fit); ship these weights in float32"
        )
    return fp16.contiguous()


def _pack_part(
    source: Path, weights: tuple[str, ...], ignored: re.Pattern[str], target: Path, name: str = "model.safetensors"
) -> None:
    found = find_weights(source, weights)
    path = found.path
    log.info("packing %s", path)
    state = {key: to_fp16(key, value, path) for key, value in found.each() if not ignored.search(key)}
    digest = hashlib.sha256()
    for each in found.files:
        with each.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    target.mkdir()
    metadata = {"format": "pt", "packed_from": path.name, "packed_from_sha256": digest.hexdigest()}
    safetensors.torch.save_file(state, target / name, metadata)
    (target / name).chmod(0o644)  # safetensors writes for the owner alone
    config = _shipped_config(read_json(source / "config.json"))
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _shipped_config(config: dict[str, Any]) -> dict[str, Any]:
    """Without paths of the training machine, and with the dtype that the weights now have."""
    kept = {key: value for key, value in config.items() if key not in ("vae_path", "torch_dtype", "_name_or_path")}
    return kept | {"dtype": "float16"}


def _copy_text_files(source: Path, target: Path) -> None:
    for name in TEXT_FILES:
        if not (source / name).is_file():
            raise CheckpointError(f"{source / name}: missing; save the tokenizer with tokenizer.save_pretrained()")
        shutil.copyfile(source / name, target / name)
    if (source / "prompt.txt").is_file():
        shutil.copyfile(source / "prompt.txt", target / "prompt.txt")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hart_edge.reference.pack", description="Pack a checkpoint as FP16."
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="checkpoint in the published layout")
    parser.add_argument("destination", metavar="DST", type=Path, help="folder to write")
    options = parser.parse_args(arguments)
    try:
        files = pack(options.source, options.destination)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for file in files:
        print(f"{file.size / 1e6:8.2f} MB  {file.path}")
    print(f"{sum(file.size for file in files) / 1e6:8.2f} MB  {options.destination}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
