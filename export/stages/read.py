"""Reading: what a build starts from, a checkpoint and the inputs that its graphs are run on.

In: a checkpoint folder (tokenizer/, llm/, text_model/: docs/contracts.md), or a preset. Out: a ReadResult. What a user
may have got wrong is found here, before minutes of tracing.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hart_edge.bundle.manifest import Licence, Precision
from hart_edge.bundle.settings import Sampling, Settings, Speed, over
from hart_edge.calib.calibrate.prompts import read_prompts
from hart_edge.calib.calibrate.ranges import CalibratedRanges, hash_files, read_ranges
from hart_edge.calib.quantizable_nodes import SMALLEST_WEIGHT
from hart_edge.errors import READING_FAULTS, BuildError, CheckpointError, bordered
from hart_edge.export.graph_module import GraphModule
from hart_edge.export.graphs import build_graphs
from hart_edge.export.stages.context import BuildContext
from hart_edge.reference.checkpoint import each_published, load_checkpoint, reads_checkpoint
from hart_edge.reference.config import TokenizerConfig, TransformerConfig
from hart_edge.reference.hart import HART
from hart_edge.reference.instruction import INSTRUCTION_FILE
from hart_edge.reference.presets import TextShape, configs
from hart_edge.reference.random_text import TOKENIZER, random_text_model
from hart_edge.reference.sampling import published_sampling
from hart_edge.reference.text_model import TextModel, load_text_model
from hart_edge.reference.text_weights import TOKENIZER_FILE
from hart_edge.runtime.allocator import return_freed_memory
from hart_edge.runtime.loop import Array
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer

# Version 2. None is among the calibration prompts, in these words or nearly; the first two are drawn by every check.
PARITY_PROMPTS = (
    "yellow banana",
    "woman astronaut: dark skin tone",
    "crying cat face",
    "flag: Canada",
    "snow-capped mountain",
    "raised fist: medium skin tone",
    "alarm clock",
    "a purple octopus",
)
PARITY_SEED = 1
WEIGHTS_SEED = 0  # of presets
INSTRUCTED_FROM = 10**9  # parameters of a text model that was trained to follow instructions

Inputs = dict[str, Array]  # what the plan asks of its caller: input_ids, or context and context_mask
ReadConfigs = Callable[[str], tuple[TransformerConfig, TokenizerConfig]]  # of a preset, by its name


@dataclass(frozen=True)
class Source:
    """A checkpoint in memory. weight_bytes: of the files that were read; their hash ties ranges to them."""

    name: str  # of its folder, or of the preset
    folder: Path | None
    tokenizer_file: Path | None
    model: HART
    text: TextModel | None
    tokenizer: PromptTokenizer | None
    graphs: Mapping[str, GraphModule]
    licences: tuple[Licence, ...]
    settings: Settings
    weight_bytes: int
    weights_sha256: str

    @property
    def random(self) -> bool:
        """Whether the weights are random: a preset's."""
        return self.folder is None

    @property
    def has_likely_codes(self) -> bool:
        """Whether logits mean something: of noise in place of a prompt, and of random weights, they do not."""
        return self.tokenizer is not None and not self.random

    def weights(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Every tensor of the checkpoint: its name, what its file holds, read again, and the module's own, which is all
        that there is of a preset."""
        state = self.model.state_dict()
        published = state.items() if self.folder is None else each_published(self.folder)
        yield from ((name, tensor, state[name]) for name, tensor in published)
        if self.text is not None:
            state, files = self.text.model.state_dict(), self.text.weights
            published = state.items() if files is None else files.each()
            yield from ((f"text_model.{name}", tensor, state[name]) for name, tensor in published)

    def free_text_model(self) -> None:
        """Free the weights of the text model, where there is one."""
        for parameter in () if self.text is None else self.text.parameters():
            parameter.data = torch.empty(0)
        return_freed_memory()

    def free_weights(self) -> None:
        """Free those of the transformer's blocks as well. The tokens graph can still run."""
        self.free_text_model()
        for block in self.model.transformer.blocks:
            for parameter in block.parameters():
                parameter.data = torch.empty(0)

    def sampling(self, asked: Settings | None = None) -> Sampling:
        """What was asked for, else the checkpoint's settings, else the published ones, over this model's scales."""
        published = published_sampling(len(self.model.patch_nums), self.model.tokenizer_config.vocab_size)
        return over(over(published, self.settings), asked or Settings())

    def parity_inputs(self) -> list[Inputs]:
        """What the graphs are compared with the reference on; seeded noise stands in for a missing text model."""
        if self.tokenizer is not None:
            prompts = PARITY_PROMPTS[:1] if self.random else PARITY_PROMPTS  # all are alike to random weights
            return [_encode(self.tokenizer, prompt) for prompt in prompts]
        config = self.model.config
        generator = torch.Generator().manual_seed(PARITY_SEED)
        context = torch.randn(1, config.context_token, config.context_dim, generator=generator)
        mask = torch.arange(config.context_token)[None] < max(1, config.context_token // 2)
        return [{"context": context.numpy(), "context_mask": mask.numpy()}]

    def calibration_inputs(self, prompts: Path | None, contexts: Path | None) -> list[Inputs]:
        """What the loop is calibrated on: a file of prompts (None: the set that is shipped), or of contexts."""
        if self.random:
            return self.parity_inputs()  # no activation of such weights means anything
        if self.tokenizer is not None:
            return [_encode(self.tokenizer, prompt) for prompt in read_prompts(prompts)]
        if contexts is None:
            raise BuildError(
                f"{self.name}: INT8 is calibrated on prompts, and this checkpoint has no text_model/; name a file "
                "with --contexts (npz with context (N, T, D) and context_mask (N, T)), or build at fp16"
            )
        return read_contexts(contexts, self.model.config.context_token, self.model.config.context_dim)


@dataclass(frozen=True)
class ReadResult:
    """sampling: the bundle's defaults; ranges: those that the user named; calibration_inputs: what ranges are to be
    collected on, empty where none are."""

    source: Source
    sampling: Sampling
    ranges: CalibratedRanges | None
    calibration_inputs: tuple[Inputs, ...]


def read(context: BuildContext) -> ReadResult:
    """Read what the options name. Raises CheckpointError or BuildError."""
    options = context.options
    with context.step(f"reading {options.checkpoint}") as step:
        if isinstance(options.checkpoint, str):
            shape = context.tools.text_shape if options.with_text_model else None
            source = random_source(
                options.checkpoint, context.tools.configs, shape, options.instruction, context.speeds
            )
        else:
            source = read_source(options.checkpoint, options.instruction, context.speeds)
            for note in source.text.notes if source.text is not None else ():
                context.say(note)
        check_excluded(source.graphs, options.excluded)
        ranges: CalibratedRanges | None = None
        inputs: list[Inputs] = []
        if options.precision is Precision.INT8:
            if options.ranges is not None:
                ranges = read_ranges(options.ranges, source.weights_sha256)
            else:
                inputs = source.calibration_inputs(options.prompts, options.contexts)
        step.size = source.weight_bytes
    return ReadResult(source, source.sampling(options.settings), ranges, tuple(inputs))


@reads_checkpoint
def read_source(folder: Path, instruction: str | None = None, speeds: Sequence[Speed] = (Speed.EXACT,)) -> Source:
    """Read a checkpoint folder. instruction: as load_text_model() has it; speeds: that its graphs are to serve. Raises
    CheckpointError."""
    checkpoint = load_checkpoint(folder)
    weights, text_model, tokenizer = list(checkpoint.read), None, None
    text_folder, config = folder / "text_model", checkpoint.model.config
    if checkpoint.has_text_model:
        text_model, tokenizer = load_text_model(
            text_folder, config.context_token, PromptTokenizer.padding_with, instruction
        )
        require_fit(text_model, config, text_folder, instruction)
        assert text_model.weights is not None  # it was read from files
        weights += text_model.weights.files.files
    return Source(
        str(folder),
        folder,
        text_folder / TOKENIZER_FILE if checkpoint.has_text_model else None,
        checkpoint.model,
        text_model,
        tokenizer,
        build_graphs(checkpoint.model, text_model, speeds),
        read_licences(folder),
        checkpoint.sampling,
        sum(path.stat().st_size for path in weights),
        hash_files(weights),
    )


def require_fit(text_model: TextModel, config: TransformerConfig, folder: Path, instruction: str | None = None) -> None:
    """Refuse a text model that is not this transformer's. instruction: what was asked for. Raises CheckpointError."""
    width, parameters = text_model.model.config.hidden_size, sum(each.numel() for each in text_model.parameters())
    if width != config.context_dim:
        raise CheckpointError(
            f"{folder}/config.json: expected hidden_size {config.context_dim}, the context_dim of llm/config.json, "
            f"found {width}; use the text model that the transformer was trained with"
        )
    if parameters >= INSTRUCTED_FROM and instruction is None and not text_model.instruction_text:
        raise CheckpointError(
            f"{folder}: expected {INSTRUCTION_FILE}, the instruction that the published pipeline puts in front of "
            f"every prompt, beside a text model of {parameters / 1e9:.1f} billion parameters, found none; name it with "
            "--instruction FILE (hart/utils/constants.py of the published code has it), or say --no-instruction where "
            "the transformer was trained without"
        )


def random_source(
    preset: str,
    configs: ReadConfigs = configs,
    text_shape: TextShape | None = None,
    instruction: str | None = None,
    speeds: Sequence[Speed] = (Speed.EXACT,),
) -> Source:
    """The shape of a preset with seeded random weights. text_shape: of its text model, None for none; instruction: as
    random_text_model() has it; speeds: as read_source() has them. Raises BuildError."""
    transformer, autoencoder = configs(preset)
    text_model, tokenizer = None, None
    if text_shape is not None:
        text_model, tokenizer = random_text_model(
            text_shape,
            transformer.context_dim,
            transformer.context_token,
            PromptTokenizer.padding_with,
            instruction,
        )
    with torch.random.fork_rng():
        torch.manual_seed(WEIGHTS_SEED)
        model = HART(transformer, autoencoder).requires_grad_(False).eval()
    identity = f"{preset}, torch {torch.__version__}, seed {WEIGHTS_SEED}"
    parts = (model,) if text_model is None else (model, text_model)
    return Source(
        preset,
        None,
        None if text_model is None else TOKENIZER,
        model,
        text_model,
        tokenizer,
        build_graphs(model, text_model, speeds),
        (),
        Settings(),
        sum(parameter.nbytes for part in parts for parameter in part.parameters()),
        hashlib.sha256(identity.encode()).hexdigest(),
    )


def check_excluded(graphs: Mapping[str, GraphModule], patterns: Iterable[str]) -> None:
    """Raise BuildError for a pattern that no weight's name matches. decide.py finds the nodes that it means."""
    names = {
        name
        for graph in graphs.values()
        for name, tensor in graph.state_dict().items()
        if tensor.ndim > 1 and tensor.numel() >= SMALLEST_WEIGHT
    }
    for pattern in patterns:
        if not any(fnmatch.filter((name, f"{name}.T"), f"{pattern}*") for name in names):  # .T: as it may be traced
            raise BuildError(f"--exclude {pattern}: no weight has a name like this; they are like {min(names)}")


@bordered(BuildError, "the contexts cannot be read", "write them with numpy.savez", programming=READING_FAULTS)
def read_contexts(path: Path, tokens: int, dim: int) -> list[Inputs]:
    """Contexts of an npz file, one dictionary of plan inputs each."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            context, mask = archive["context"].astype(np.float32), archive["context_mask"].astype(bool)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise BuildError(
            f"{path}: not an npz with context and context_mask ({error}); write one with numpy.savez"
        ) from None
    if context.ndim != 3 or context.shape[1:] != (tokens, dim) or mask.shape != context.shape[:2] or not len(context):
        raise BuildError(
            f"{path}: expected context (N, {tokens}, {dim}) and context_mask (N, {tokens}), found {context.shape} and "
            f"{mask.shape}; use the text model that the transformer was trained with"
        )
    return [{"context": c[None], "context_mask": m[None]} for c, m in zip(context, mask, strict=True)]


@reads_checkpoint
def read_licences(checkpoint: Path) -> tuple[Licence, ...]:
    """The checkpoint's licences.json: a list of {"part", "spdx", "attribution"}; nothing if there is none."""
    path = checkpoint / "licences.json"
    if not path.is_file():
        return ()
    try:
        licences = tuple(Licence(**entry) for entry in json.loads(path.read_text(encoding="utf-8")))
        if not all(isinstance(value, str) for licence in licences for value in vars(licence).values()):
            raise TypeError("every value is a string")
        return licences
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: expected a list of part, spdx and attribution ({error}); mend it") from None


def _encode(tokenizer: PromptTokenizer, prompt: str) -> Inputs:
    return {"input_ids": tokenizer.encode(prompt)}
