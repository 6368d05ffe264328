"""Files of weights -> tensors by name: safetensors or torch pickles, whole or in shards with an index.

In: a folder and the names that its weights may have. Out: Weights, which reads them as data only (pickles with
weights_only=True), all at once or one by one. What checkpoint.py and text_weights.py compare with a model comes from
here, and so does what a build holds its graphs against (export/stages/prove.py).
"""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor, nn

from hart_edge.bundle.files import path_in_text
from hart_edge.errors import CheckpointError

INDEX_ENDING = ".index.json"
POINTER = b"version https://git-lfs"  # what git leaves in place of a large file that it has not fetched
FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
}
SHOWN = 20  # problems of a file that a message lists


@dataclass(frozen=True)
class Weights:
    """The files of one part. path: what a message names, the file or the index of the shards."""

    path: Path
    files: tuple[Path, ...]

    def read(self) -> dict[str, Tensor]:
        """Every tensor, of the dtype that it has in its file. Raises CheckpointError."""
        return dict(self.each())

    def each(self) -> Iterator[tuple[str, Tensor]]:
        """The same one by one, without holding the others. Raises CheckpointError."""
        if self.files == (self.path,):
            yield from each_tensor(self.path)
            return
        expected = _read_index(self.path)
        for file in self.files:
            own = {name for name, shard in expected.items() if shard == file.name}
            for name, tensor in each_tensor(file):
                if name not in own:
                    raise CheckpointError(f"{file}: {name}: not in {self.path.name}; download both again")
                own.remove(name)
                yield name, tensor
            if own:
                raise CheckpointError(
                    f"{file}: {min(own)}: expected this tensor, which {self.path.name} names, found none "
                    f"({len(own)} are missing); download the file again"
                )


def has_weights(folder: Path, names: Iterable[str]) -> bool:
    """Whether a folder has one of the names, as a file or as an index, or shards without one."""
    return any((folder / f"{name}{end}").is_file() for name in names for end in ("", INDEX_ENDING)) or any(
        folder.glob("*-of-*")
    )


def find_weights(folder: Path, names: Iterable[str]) -> Weights:
    """The first of the names that exists in the folder, as a file or as the index of its shards."""
    for name in names:
        path, index = folder / name, folder / f"{name}{INDEX_ENDING}"
        if path.is_file():
            return Weights(path, (path,))
        if index.is_file():
            shards = tuple(folder / shard for shard in sorted(set(_read_index(index).values())))
            for shard in shards:
                if not shard.is_file():
                    raise CheckpointError(f"{shard}: missing, though {index.name} names it; download it as well")
            return Weights(index, shards)
    alone = sorted(path.name for path in folder.glob("*-of-*") if path.suffix in (".safetensors", ".bin"))
    if alone:
        raise CheckpointError(
            f"{folder}: expected the index of {alone[0]}, such as model.safetensors{INDEX_ENDING}, found none; "
            "download it as well"
        )
    raise CheckpointError(f"{folder}: no weights; expected one of {', '.join(names)}, or an index of shards")


def require_fetched(path: Path) -> None:
    """Refuse a git-lfs pointer. Raises CheckpointError; a missing file is nobody's pointer."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise CheckpointError(
                f"{path}: expected the file itself, found a git-lfs pointer to it; fetch it with `git lfs pull`, or "
                "download it"
            )


def each_tensor(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file, one by one, each in memory of its own: what is mapped counts until the last one is gone.

    A pickle is read with weights_only=True: it can hold nothing but tensors.
    """
    require_fetched(path)
    if path.suffix != ".safetensors":
        yield from _read_pickle(path).items()
        return
    try:
        with path_in_text(path) as text, safetensors.safe_open(text, framework="pt") as checked:
            names = list(checked.keys())  # a file that the library has accepted is as its header says
            with path.open("rb") as file:
                start = 8 + int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(start - 8))
                for name in names:
                    entry = header[name]
                    if entry["dtype"] not in DTYPES:
                        yield name, checked.get_tensor(name)
                        continue
                    begin, end = entry["data_offsets"]
                    file.seek(start + begin)
                    data = torch.from_numpy(np.fromfile(file, np.uint8, end - begin))
                    yield name, data.view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except (RuntimeError, OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise _unreadable(path, error) from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A file of named tensors. Raises CheckpointError."""
    return dict(each_tensor(path))


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with path_in_text(path) as text:
            zipped = zipfile.is_zipfile(path)  # files older than torch 1.6 are not, and cannot be mapped
            state = torch.load(text, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds Python objects, not only tensors, and reading them could run code; it was not read. "
            f"Save a plain state dict, or convert the file to safetensors. ({str(error).splitlines()[0]})"
        ) from None
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: expected a dictionary of tensors; save model.state_dict() instead")
    return state


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{path}: not a readable weight file ({reason}); copy it again")


def _read_index(path: Path) -> dict[str, str]:
    """The shard of every tensor."""
    table = read_json(path).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(shard, str) for shard in table.values()):
        raise CheckpointError(f"{path}: expected weight_map, a file for every tensor, found none; copy it again")
    for shard in table.values():
        if Path(shard).name != shard or "\\" in shard or shard in ("", ".", ".."):
            raise CheckpointError(f"{path}: expected files of its own folder, found {shard!r}; do not use it")
    return table


def read_json(path: Path) -> dict[str, Any]:
    """A config.json as a dictionary; CheckpointError when it is missing or not an object."""
    require_fetched(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; copy it from the published checkpoint") from None
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error}); copy it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}; copy it again")
    return value


def refuse_quantized(config: Mapping[str, Any], path: Path) -> None:
    """Refuse the config.json of weights that are integers already. Raises CheckpointError."""
    found = config.get("quantization_config", config.get("compression_config"))
    if found is None:
        return
    method = found.get("quant_method", "an unnamed method") if isinstance(found, dict) else found
    raise CheckpointError(
        f"{path}: quantization_config: expected weights of fp32, fp16 or bf16, found weights quantised by {method}; "
        "use the model that they were made from: a build quantises it itself (--precision, --text-precision)"
    )


def as_float32(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in float32; those of other types leave the state, and memory, one by one."""
    return {name: state.pop(name).float() for name in list(state)}


def mismatches(
    state: Mapping[str, Tensor], model: nn.Module, prefixes: tuple[str, ...], *, finite: bool = False
) -> list[str]:
    """Missing, misshapen, unusable and unknown tensors, a line each. finite: NaN and infinity are unusable too."""
    expected = {name: p.shape for name, p in model.state_dict().items() if name.startswith(prefixes)}
    problems = []
    for name, shape in expected.items():
        problem = (
            f"expected shape {tuple(shape)}, found nothing"
            if name not in state
            else _problem(state[name], shape, finite)
        )
        if problem:
            problems.append(f"{name}: {problem}")
    return problems + [f"{name}: not part of this architecture" for name in state if name not in expected]


def _problem(tensor: Tensor, shape: torch.Size, finite: bool) -> str:
    """What is wrong with a tensor; "" where nothing is."""
    if tensor.shape != shape:
        return f"expected shape {tuple(shape)}, found {tuple(tensor.shape)}"
    if not tensor.is_floating_point():
        return f"expected floating point numbers, found {tensor.dtype}"
    if tensor.dtype not in FLOATS:
        return f"expected fp32, fp16 or bf16, found {tensor.dtype}, which loses its scales; use the unquantised model"
    if finite and tensor.numel() and not all(map(math.isfinite, torch.aminmax(tensor.detach()))):
        return "expected finite numbers, found NaN or infinity; copy the file again"
    return ""


def check_state(
    state: Mapping[str, Tensor],
    model: nn.Module,
    prefixes: tuple[str, ...],
    path: Path,
    named: Callable[[str], str] = lambda line: line,
    *,
    finite: bool = False,
) -> None:
    """Refuse missing, misshapen, unusable and unknown tensors by name. named: a line as a message has it; finite: as
    mismatches() has it."""
    if problems := [named(line) for line in mismatches(state, model, prefixes, finite=finite)]:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        shown = "\n  ".join(problems[:SHOWN]) + more
        raise CheckpointError(
            f"{path}: does not fit its config.json ({len(problems)} tensors):\n  {shown}\n"
            "use the config.json that belongs to these weights"
        )
