"""Attention of a preset's last scale on a CPU: as two products and a softmax, and as one operator of ONNX Runtime.

    python -m benchmarks.attention hart-0.7b-256 hart-0.7b-512 hart-0.7b-1024 --threads 2

One block and one branch of guidance, with the bias of the unconditional branch. Each variant runs in a process of its
own, with the runtime's session options. Peak: resident memory that the runs add to an open session.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from hart_edge.bundle.limits import peak_memory
from hart_edge.bundle.target import Target
from hart_edge.engines.onnxruntime.library import PROVIDERS, load_library, run_options, session_options
from hart_edge.export.graph_module import GraphModule, spec
from hart_edge.export.onnx_export import export_graph
from hart_edge.export.unconditional import attend, key_bias
from hart_edge.reference.config import TokenizerConfig, TransformerConfig
from hart_edge.reference.presets import configs

Configs = Callable[[str], tuple[TransformerConfig, TokenizerConfig]]
FORMS = {"products and softmax": False, "one operator": True}


class AttentionGraph(GraphModule):
    """Queries (1, heads, n, head_dim), cached keys and values (N, 1, heads, head_dim) -> (1, heads, n, head_dim)"""

    name = "attention"

    def __init__(self, config: TransformerConfig, *, fused: bool) -> None:
        super().__init__()
        self.context_tokens, self.fused = config.context_token, fused
        heads, head_dim = config.num_heads, config.head_dim
        rows = spec("key", "N", 1, heads, head_dim), spec("value", "N", 1, heads, head_dim)
        self.inputs = (spec("query", 1, heads, "n", head_dim), *rows)
        self.outputs = (spec("found", 1, heads, "n", head_dim),)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        bias = key_bias(key.shape[0], self.context_tokens)
        return attend(query, key.permute(1, 2, 0, 3), value.permute(1, 2, 0, 3), bias, fused=self.fused)


def shape_of(config: TransformerConfig) -> tuple[int, int]:
    """How many queries and keys the last scale has."""
    return config.scale_tokens[-1], sum(config.scale_tokens)


def measure(config: TransformerConfig, *, fused: bool, threads: int, rounds: int) -> tuple[float, int]:
    """Median seconds of a run, and the bytes by which the peak memory of this process grows."""
    queries, keys = shape_of(config)
    generator, heads, head_dim = np.random.default_rng(0), config.num_heads, config.head_dim
    shapes = {"query": (1, heads, queries, head_dim)} | dict.fromkeys(("key", "value"), (keys, 1, heads, head_dim))
    feeds = {name: generator.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    library = load_library()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "attention.onnx"
        export_graph(AttentionGraph(config, fused=fused).eval(), path)
        options = session_options(library, threads, arena=True)
        session = library.InferenceSession(str(path), options, providers=[PROVIDERS[Target.CPU]])
    before, times = peak_memory(), []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        session.run(None, feeds, run_options(library, arena=True))
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:]), peak_memory() - before


def main(arguments: Sequence[str] | None = None, configs: Configs = configs) -> None:
    """configs: a function from the name of a preset to its configurations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="after a first that does not count")
    parser.add_argument("--form", choices=FORMS, help="measure one form, in this process")
    asked = parser.parse_args(arguments)
    if asked.form:
        for preset in asked.presets:
            config, _ = configs(preset)
            seconds, added = measure(config, fused=FORMS[asked.form], threads=asked.threads, rounds=asked.rounds)
            queries, keys = shape_of(config)
            print(f"| {preset} | {queries} | {keys} | {asked.form} | {seconds * 1e3:.1f} | {added / 1e6:.0f} |")
        return
    print("| preset | queries | keys | form | ms | peak, MB |")
    print("|---|--:|--:|---|--:|--:|", flush=True)
    for preset in asked.presets:
        for form in FORMS:
            command = [sys.executable, "-m", "benchmarks.attention", preset, "--form", form]
            command += ["--threads", str(asked.threads), "--rounds", str(asked.rounds)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
