"""The network of a text_model/ folder: built from its config.json, every tensor taken from the files by name and shape.

In: the folder. Out: a Hugging Face network in float32 with exactly those weights. transformers knows the architecture
and nothing more: its own loading fills what it does not find with random numbers, and goes on. Two layouts besides the
plain one are understood: a causal model's, and the language part of a vision-language model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hart_edge.bundle.files import path_in_text
from hart_edge.errors import READING_FAULTS, CheckpointError, cause
from hart_edge.reference.weight_files import (
    Weights,
    as_float32,
    check_state,
    find_weights,
    has_weights,
    read_json,
    refuse_quantized,
)

TEXT_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZER_FILE = "tokenizer.json"
IGNORED_TEXT = re.compile(r"\.(inv_freq|masked_bias)$")  # buffers that follow from the configuration
RANDOM_FILLS = frozenset(
    {"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"}
)


@dataclass(frozen=True)
class Layout:
    """How a file names the network's tensors: a prefix before each, and others that read no prompt."""

    prefix: str
    others: re.Pattern[str]


NOTHING = re.compile(r"(?!)")
HEAD = re.compile(r"^lm_head\.")
PLAIN = Layout("", NOTHING)
# Of a vision-language model: as it is saved now, as it was published, and without its head.
LANGUAGE_PARTS = (
    Layout("model.language_model.", re.compile(r"^model\.visual\.|^lm_head\.")),
    Layout("model.", re.compile(r"^visual\.|^lm_head\.")),
    Layout("language_model.", re.compile(r"^visual\.")),
)


@dataclass(frozen=True)
class TextWeights:
    """The files of a network, and how they name its tensors."""

    files: Weights
    layout: Layout

    def each(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor under the network's name for it, as its file has it, one by one. Raises CheckpointError."""
        for name, tensor in self.files.each():
            if name.startswith(self.layout.prefix) and not self.is_other(name):
                yield name.removeprefix(self.layout.prefix), tensor

    def is_other(self, name: str) -> bool:
        """Whether a tensor of the file is known to be no part of the network."""
        return bool(self.layout.others.search(name) or IGNORED_TEXT.search(name))


@dataclass(frozen=True)
class Network:
    """model: in float32 and eval mode; notes: what of the files was understood and left out."""

    model: nn.Module
    weights: TextWeights
    notes: tuple[str, ...]


class Unfilled(TorchFunctionMode):
    """New modules get memory and no random numbers, which a billion weights take long to draw. Buffers are computed."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if getattr(func, "__name__", "") in RANDOM_FILLS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def read_network(folder: Path) -> Network:
    """Read text_model/. Raises CheckpointError naming what is missing, misshapen or not part of the network."""
    raw = read_json(folder / "config.json")
    refuse_quantized(raw, folder / "config.json")
    if not has_weights(folder, TEXT_WEIGHTS):
        expected = f"expected {' or '.join(TEXT_WEIGHTS)}, or an index of shards, found none of them"
        raise CheckpointError(f"{folder}: not a readable Hugging Face text model ({expected}); copy it again")
    files = find_weights(folder, TEXT_WEIGHTS)
    config = _read_config(folder)
    language = getattr(config, "text_config", None)
    model = make_network(folder, config if language is None else language)
    tensors = files.read()
    weights = TextWeights(files, _layout_of(tensors, model, is_language_part=language is not None))
    prefix = weights.layout.prefix
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if weights.is_other(name):
            continue
        own = name.removeprefix(prefix)
        taken = own in state or not name.startswith(prefix)  # then it is under two names, or under none
        state[f"{name}, beside {prefix}..." if taken else own] = tensor

    def as_in_file(line: str) -> str:
        return line if line.endswith("not part of this architecture") else f"{prefix}{line}"

    check_state(state, model, ("",), files.path, as_in_file, finite=True)
    others = [name for name in tensors if weights.layout.others.search(name)]
    tensors.clear()
    model.load_state_dict(as_float32(state), assign=True)
    return Network(model.requires_grad_(False), weights, _notes(weights, others, is_language_part=language is not None))


def _layout_of(tensors: Collection[str], model: nn.Module, *, is_language_part: bool) -> Layout:
    """The layout in which a file has the network's first tensor; the plain one where none has."""
    first = next(iter(model.state_dict()))
    causal = Layout(f"{getattr(model, 'base_model_prefix', '') or 'model'}.", HEAD)
    layouts = LANGUAGE_PARTS if is_language_part else (PLAIN, causal)
    return next((each for each in layouts if f"{each.prefix}{first}" in tensors), layouts[0])


def _notes(weights: TextWeights, others: Sequence[str], *, is_language_part: bool) -> tuple[str, ...]:
    if not weights.layout.prefix:
        return ()
    what = "the language part of a vision-language model" if is_language_part else "a causal model"
    left = f"; {len(others)} tensors that read no prompt are left out, such as {others[0]}" if others else ""
    return (f"text_model: {what}, whose names begin with {weights.layout.prefix}{left}",)


def make_network(folder: Path | str, config: Any) -> nn.Module:
    """A network of a Hugging Face configuration in float32, its weights not set. Raises CheckpointError."""
    import transformers  # slow to import, and only this needs it

    try:
        with Unfilled():
            made = transformers.AutoModel.from_config(
                config, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
            )
    except READING_FAULTS:
        raise
    except Exception as error:  # transformers raises nearly anything
        raise CheckpointError(
            f"{folder}/config.json: transformers {transformers.__version__} cannot build this network "
            f"({cause(error)}); copy the file again, or use the text model that was published with the transformer"
        ) from None
    return made.eval()


def _read_config(folder: Path) -> Any:
    import transformers

    try:
        with path_in_text(folder) as path:
            return transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except READING_FAULTS:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{folder}/config.json: expected a text model that transformers {transformers.__version__} knows, found "
            f"another ({cause(error)}); copy the file again, or use the text model that was published with the "
            "transformer"
        ) from None
