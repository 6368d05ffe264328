"""The errors of range rules and of layers at INT8: the measurements for calib's default rules and docs/int8.md.

In: a checkpoint with a text model. Out: OUT/range_rules.md, the error of each component under each range rule, with
smoothing and without; OUT/layers.md and OUT/layers.svg, the divergence of the transformer's logits with INT8 in only
one layer; OUT/decoder.md, the decoder's pictures in each scheme that it could have; OUT/cache.md, the transformer with
keys and values in each form that they could have; with --pictures OUT/encoder.md, the codes that stay where the
encoder's convolutions are INT8.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median

import numpy as np

from benchmarks.experiments.chart import Curve, chart
from hart_edge.bundle.manifest import Precision
from hart_edge.bundle.quality import psnr
from hart_edge.calib.calibrate.collector import Collector
from hart_edge.calib.calibrate.range_rules import RangeRule, default_rule
from hart_edge.calib.calibrate.ranges import Ranges
from hart_edge.calib.calibrate.smoothing import ALPHAS
from hart_edge.calib.graph_files import read_graph, save_graph
from hart_edge.calib.quantizable_nodes import find_quantizable_nodes
from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.calib.scheme import CacheForm, Scheme, specs_in
from hart_edge.calib.select.fastest import timed
from hart_edge.calib.select.logits import mean_kl
from hart_edge.calib.select.sensitivity import LayerFigures, layers_of, measure_layers
from hart_edge.cli.progress import BuildLines
from hart_edge.data.pictures import decode
from hart_edge.engines.base import Session
from hart_edge.export.options import BuildOptions
from hart_edge.export.parity.compare import compare
from hart_edge.export.parity.recording import FIRST
from hart_edge.export.stages.calibrate import calibrated_scheme, collect_statistics, ranges_of
from hart_edge.export.stages.context import open_context
from hart_edge.export.stages.int8_choice import CastingSession, logits_judge
from hart_edge.export.stages.read import read
from hart_edge.export.stages.record import record
from hart_edge.export.stages.trace import trace
from hart_edge.export.tools import TOOLS
from hart_edge.reference.presets import SHIPPED_MODEL

GRAPHS = ("text_model", "context", "transformer", "residual")
TABLES = ("range_rules", "layers", "decoder", "cache", "encoder")


class Workbench:
    """A traced checkpoint, its calibration statistics, and recorded calls on which schemes are tried."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        options = BuildOptions(checkpoint, folder / "none", Precision.INT8)
        context = open_context(options, BuildLines(as_json=False), TOOLS)
        found = read(context)
        traced = trace(context, found, folder)
        self.folder, self.library = folder, context.library
        self.statistics = collect_statistics(traced, found.calibration_inputs, context.library)
        self.source = traced.source
        self.recording = record(context, traced, folder / "calls").exact
        self.judge = logits_judge(self.recording, traced.source.graphs["tokens"])

    def ranges(self, graph: str, rule: RangeRule, alphas: Sequence[float]) -> Ranges:
        return ranges_of(graph, self.folder, self.statistics[graph], rule, alphas)

    def open(
        self,
        graph: str,
        ranges: Ranges,
        without: Collection[str] = (),
        scheme: Scheme | None = None,
        cache: CacheForm = CacheForm.FLOAT32,
    ) -> Session:
        """A session that takes the reference's inputs."""
        model, scheme = read_graph(self.folder / f"{graph}.onnx"), scheme or calibrated_scheme(graph)
        path = self.folder / f"{graph}.tried.onnx"
        save_graph(apply_scheme(model, scheme, ranges, self.folder, excluded=without, cache=cache), path, self.folder)
        return CastingSession(self.library.open(path), specs_in(self.source.graphs[graph].inputs, scheme, cache))

    def error(self, graph: str, session: Session) -> float:
        """The largest error over all calls, as in a model card."""
        return max(
            compare(graph, call.outputs, session.run(call.inputs, call.wanted)).error
            for call in self.recording.calls(graph)
        )


def range_rules(bench: Workbench) -> str:
    """The table of range_rules.md."""
    lines = ["| component | range rule | error | error, smoothed | KL | KL, smoothed |", "|---|---|--:|--:|--:|--:|"]
    for graph in GRAPHS:
        for rule in RangeRule:
            errors, divergences = [], []
            for alphas in ((), ALPHAS):
                session = bench.open(graph, bench.ranges(graph, rule, alphas))
                errors.append(f"{bench.error(graph, session):.1e}")
                judged = graph == "transformer"
                divergences.append(f"{mean_kl(bench.judge.errors(session)):.2e}" if judged else "")
            chosen = " (default)" if rule is default_rule(graph) else ""
            lines.append(f"| {graph} | {rule}{chosen} | {' | '.join([*errors, *divergences])} |")
    return "\n".join([*lines, ""])


def decoder(bench: Workbench) -> str:
    """The table of decoder.md: pictures against the reference's from the same latents, and the time of one."""
    statistics = bench.statistics["decoder"]
    nodes = find_quantizable_nodes(read_graph(bench.folder / "decoder.onnx").graph)
    exact = [node.weight for node in nodes if not Scheme.U8S8_CHANNELS.quantizes(node.kind, node.weight)]
    sessions: dict[str, Session] = {}
    for scheme in (Scheme.FLOAT32, Scheme.INT8_WEIGHTS, Scheme.U8S8, Scheme.U8S8_CHANNELS, Scheme.S8S8_CHANNELS):
        own = scheme if scheme is Scheme.U8S8 else None
        ranges = ranges_of("decoder", bench.folder, statistics, RangeRule.MIN_MAX, (), own)
        without = exact if scheme is Scheme.U8S8 else ()
        sessions[str(scheme)] = bench.open("decoder", ranges, without, scheme)
    calls = bench.recording.calls("decoder")
    errors: dict[str, list[float]] = {name: [] for name in sessions}  # mean squares
    for name, session in sessions.items():
        for call in calls:
            difference = session.run(call.inputs, ["image"])["image"].astype(np.float64) - call.outputs["image"]
            errors[name].append(float(np.square(difference).mean()))
    rounds: dict[str, list[float]] = {name: [] for name in sessions}
    for call in (*calls, *calls):
        for name, session in sessions.items():
            rounds[name].append(timed(session, call)[0])
    lines = ["| scheme | dB, mean | dB, worst picture | ms |", "|---|--:|--:|--:|"]
    for name, found in errors.items():
        each = [math.inf if (value := psnr(error)) is None else value for error in found]
        on_gpus = name == Scheme.S8S8_CHANNELS  # a CPU has no kernels for it, and casts around every node
        shown = "" if on_gpus else f"{1000 * median(rounds[name]):.1f}"
        lines.append(f"| {name} | {mean(each):.1f} | {min(each):.1f} | {shown} |")
    return "\n".join([*lines, ""])


def encoder(bench: Workbench, pictures: Path) -> str:
    """The table of encoder.md: codes of pictures of a folder, of which calibration sees every other one, and how far
    they end from the latent, in units of the distance that float32's have."""
    path = bench.folder / "encoder.onnx"
    model = read_graph(path)
    side = model.graph.input[0].type.tensor_type.shape.dim[3].dim_value
    found = sorted(pictures.glob("*.png"))
    seen, others = (
        [decode(file, side).transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1 for file in files]
        for files in (found[::2], found[1::2])
    )
    with Collector({"encoder": path}, {"encoder": Scheme.U8S8_CHANNELS}, bench.library) as collector:
        for image in seen:
            collector.run("encoder", {"image": image}, {})
            collector.end_prompt()
    statistics = collector.statistics["encoder"]
    ranges = ranges_of("encoder", bench.folder, statistics, RangeRule.MIN_MAX, (), Scheme.U8S8_CHANNELS)
    behind = [each.weight for each in find_quantizable_nodes(model.graph) if not each.weight.startswith("encoder.")]
    exact = bench.library.open(path)
    expected = [exact.run({"image": image}) for image in others]
    distance = "mean square distance to the latent, float32's as 1"
    lines = [f"| scheme | codes that stay | of the worst picture | {distance} |", "|---|--:|--:|--:|"]
    for scheme, without in ((Scheme.INT8_WEIGHTS, ()), (Scheme.U8S8_CHANNELS, behind)):
        session, same, distances = bench.open("encoder", ranges, without, scheme), [], []
        for image, wanted in zip(others, expected, strict=True):
            given = session.run({"image": image})
            same.append(float(np.mean(given["indices"] == wanted["indices"])))
            rests = [np.square(each["f_hat"] - wanted["latent"]).mean() for each in (given, wanted)]
            distances.append(float(rests[0] / rests[1]))
        lines.append(f"| {scheme} | {100 * mean(same):.1f} % | {100 * min(same):.1f} % | {mean(distances):.3f} |")
    return "\n".join([*lines, ""])


def caches(bench: Workbench) -> str:
    """The table of cache.md: the transformer's logits with keys and values in each form, and its time of a picture."""
    ranges, names = bench.ranges("transformer", default_rule("transformer"), ALPHAS), list(CacheForm)
    sessions = {form: bench.open("transformer", ranges, scheme=Scheme.DYNAMIC, cache=form) for form in names}
    rounds: dict[CacheForm, list[float]] = {form: [] for form in names}
    for _ in range(5):
        for form, session in sessions.items():
            rounds[form].append(sum(timed(session, call)[0] for call in bench.recording.calls("transformer", FIRST)))
    lines = ["| keys and values | KL, nats | top-1 | ms |", "|---|--:|--:|--:|"]
    for form, session in sessions.items():
        errors = bench.judge.errors(session)
        same = sum(each.same for each in errors) / sum(each.tokens for each in errors)
        lines.append(f"| {form} | {mean_kl(errors):.2e} | {100 * same:.2f} % | {1000 * median(rounds[form]):.0f} |")
    return "\n".join([*lines, ""])


def layers(bench: Workbench) -> list[LayerFigures]:
    """The figures of each layer of the transformer with INT8 in only this layer, the most sensitive first."""
    ranges = bench.ranges("transformer", default_rule("transformer"), ALPHAS)
    found = layers_of(read_graph(bench.folder / "transformer.onnx"), Scheme.U8S8)
    every = {weight for _, weights in found for weight in weights}

    def open_with(weights: Collection[str]) -> Session:
        return bench.open("transformer", ranges, every.difference(weights))

    return measure_layers(found, open_with, bench.judge, print)


def layer_table(figures: Sequence[LayerFigures]) -> str:
    rows = [f"| {layer.name} | {layer.kl:.2e} |" for layer in figures]
    return "\n".join(["| layer in INT8 alone | KL, nats |", "|---|--:|", *rows, ""])


def layer_chart(figures: Sequence[LayerFigures]) -> str:
    """A curve for each kind of layer over the blocks."""
    kinds: dict[str, list[tuple[float, float, float]]] = {}
    for layer in figures:
        _, block, kind = layer.name.split(".", 2)
        kinds.setdefault(kind, []).append((int(block), 1e3 * layer.kl, 0.0))
    curves = [Curve(kind, sorted(points)) for kind, points in kinds.items()]
    return chart("INT8 in one layer alone", "block", "KL of the logits, 1e-3 nats", curves)


def main() -> None:
    p = argparse.ArgumentParser(prog="python -m benchmarks.int8", description=__doc__.splitlines()[0])
    p.add_argument("--checkpoint", type=Path, default=SHIPPED_MODEL, help="folder (default: the shipped model)")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for tables and plot")
    p.add_argument("--only", nargs="+", choices=TABLES, metavar="TABLE", help="default: all there is input for")
    p.add_argument("--pictures", type=Path, metavar="DIR", help="PNGs for the table of the encoder")
    a = p.parse_args()
    tables = a.only or [name for name in TABLES if name != "encoder" or a.pictures]
    if "encoder" in tables and a.pictures is None:
        p.error("--only encoder: expected --pictures DIR, found none")
    a.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(a.checkpoint, Path(folder))
        for name in tables:
            if name == "layers":
                figures = layers(bench)
                (a.out / "layers.svg").write_text(layer_chart(figures), "utf-8")
                table = layer_table(figures)
            else:
                of_pictures = partial(encoder, pictures=a.pictures)
                makers: dict[str, Callable[[Workbench], str]] = {
                    "range_rules": range_rules, "decoder": decoder, "cache": caches, "encoder": of_pictures,
                }  # fmt: skip
                table = makers[name](bench)
            (a.out / f"{name}.md").write_text(table, "utf-8")
            print(table)


if __name__ == "__main__":
    main()
