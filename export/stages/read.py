"""Reading: what a build starts from, a checkpoint and the inputs that its graphs are run on.

In: a checkpoint folder (tokenizer/, llm/, text_model/: docs/contracts.md), or a preset. Out: a ReadResult. What a user
may have got wrong is found here, before minutes of tracing.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hart_edge.bundle.manifest import Licence, Precision
from hart_edge.bundle.settings import Sampling, Settings, over
from hart_edge.calib.calibrate.prompts import read_prompts
from hart_edge.calib.calibrate.ranges import CalibratedRanges, hash_files, read_ranges
from hart_edge.errors import READING_FAULTS, BuildError, CheckpointError, bordered
from hart_edge.export.graphs import GraphModule, build_graphs
from hart_edge.export.stages.context import BuildContext
from hart_edge.reference.checkpoint import load_checkpoint, reads_checkpoint
from hart_edge.reference.config import TokenizerConfig, TransformerConfig
from hart_edge.reference.hart import HART
from hart_edge.reference.presets import configs
from hart_edge.reference.sampling import published_sampling
from hart_edge.reference.text_model import load_text_model
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

Inputs = dict[str, Array]  # what the plan asks of its caller: input_ids, or context and context_mask
ReadConfigs = Callable[[str], tuple[TransformerConfig, TokenizerConfig]]  # of a preset, by its name


@dataclass(frozen=True)
class Source:
    """A checkpoint in memory. weight_bytes: of the files that were read; their hash ties ranges to them."""

    name: str  # of its folder, or of the preset
    folder: Path | None
    model: HART
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

    def free_weights(self) -> None:
        """Free the weights of the transformer's blocks and of the text model. The tokens graph can still run."""
        text_model = self.graphs["text_model"].parameters() if "text_model" in self.graphs else ()
        blocks = (parameter for block in self.model.transformer.blocks for parameter in block.parameters())
        for parameter in (*blocks, *text_model):
            parameter.data = torch.empty(0)

    def sampling(self, asked: Settings | None = None) -> Sampling:
        """What was asked for, else the checkpoint's settings, else the published ones, over this model's scales."""
        published = published_sampling(len(self.model.patch_nums), self.model.tokenizer_config.vocab_size)
        return over(over(published, self.settings), asked or Settings())

    def parity_inputs(self) -> list[Inputs]:
        """What the graphs are compared with the reference on; seeded noise stands in for a missing text model."""
        if self.tokenizer is not None:
            return [_encode(self.tokenizer, prompt) for prompt in PARITY_PROMPTS]
        config = self.model.config
        generator = torch.Generator().manual_seed(PARITY_SEED)
        context = torch.randn(1, config.context_token, config.context_dim, generator=generator)
        mask = torch.arange(config.context_token)[None] < max(1, config.context_token // 2)
        return [{"context": context.numpy(), "context_mask": mask.numpy()}]

    def calibration_inputs(self, prompts: Path | None, contexts: Path | None) -> list[Inputs]:
        """What the loop is calibrated on: a file of prompts (None: the set that is shipped), or of contexts."""
        if self.tokenizer is not None:
            return [_encode(self.tokenizer, prompt) for prompt in read_prompts(prompts)]
        if self.random:
            return self.parity_inputs()  # no activation of such weights means anything
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
            source = random_source(options.checkpoint, context.tools.configs)
        else:
            source = read_source(options.checkpoint)
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
def read_source(folder: Path) -> Source:
    """Read a checkpoint folder. Raises CheckpointError."""
    checkpoint = load_checkpoint(folder)
    weights, text_model, tokenizer = list(checkpoint.read), None, None
    if checkpoint.has_text_model:
        text_folder = folder / "text_model"
        text_model, tokenizer = load_text_model(
            text_folder, checkpoint.model.config.context_token, PromptTokenizer.padding_with
        )
        weights += sorted(path for path in text_folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    return Source(
        str(folder),
        folder,
        checkpoint.model,
        tokenizer,
        build_graphs(checkpoint.model, text_model),
        read_licences(folder),
        checkpoint.sampling,
        sum(path.stat().st_size for path in weights),
        hash_files(weights),
    )


def random_source(preset: str, configs: ReadConfigs = configs) -> Source:
    """The shape of a preset with seeded random weights, without a text model. Raises BuildError."""
    with torch.random.fork_rng():
        torch.manual_seed(WEIGHTS_SEED)
        model = HART(*configs(preset)).requires_grad_(False).eval()
    identity = f"{preset}, torch {torch.__version__}, seed {WEIGHTS_SEED}"
    return Source(
        preset,
        None,
        model,
        None,
        build_graphs(model, None),
        (),
        Settings(),
        sum(parameter.nbytes for parameter in model.parameters()),
        hashlib.sha256(identity.encode()).hexdigest(),
    )


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
