"""The check of a build against its limits: what fails it, what the message says, and which files are left."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hart_edge.bundle.manifest import Precision, Quality
from hart_edge.bundle.quality import LIMITS, Limits, limits_for
from hart_edge.bundle.verify import open_bundle
from hart_edge.calib.calibrate.prompts import read_prompts
from hart_edge.errors import ParityError
from hart_edge.export.chain import build
from hart_edge.export.options import BuildOptions
from hart_edge.export.parity.limits import Breach, find_breach
from hart_edge.export.stages.read import PARITY_PROMPTS
from hart_edge.export.tools import Tools
from tests.export.small_checkpoint import CHECKPOINT


class Judge:
    """Applies the limits on logits although the small checkpoint has random weights. Records the figures it judged."""

    def __init__(self) -> None:
        self.seen: list[Quality] = []

    def __call__(self, quality: Quality, limits: Limits, patch_nums: Sequence[int], *, logits: bool) -> Breach | None:
        assert not logits  # the contexts are noise
        self.seen.append(quality)
        return find_breach(quality, limits, patch_nums, logits=True)


def spoilt(tools: Tools, graph: str, weight: str, by: float) -> Tools:
    """Tools that add noise to a weight of a graph's final scheme, as a share of the weight's own spread."""

    def rewrite(
        model: onnx.ModelProto, scheme: Any, ranges: Any, folder: Path, *more: Any, **named: Any
    ) -> onnx.ModelProto:
        written = tools.rewrite(model, scheme, ranges, folder, *more, **named)
        if model.graph.name == graph:
            (tensor,) = (each for each in written.graph.initializer if each.name.startswith(weight))
            value = numpy_helper.to_array(tensor, str(folder))
            noise = by * value.std() * np.random.default_rng(0).standard_normal(value.shape)
            tensor.CopyFrom(numpy_helper.from_array((value + noise).astype(value.dtype), tensor.name))
        return written

    return replace(tools, rewrite=rewrite)


def test_parity_prompts_are_not_those_of_calibration() -> None:
    def words(prompt: str) -> frozenset[str]:
        return frozenset(re.findall(r"\w+", prompt.lower())) - {"a", "an", "the", "of"}

    assert len({words(prompt) for prompt in PARITY_PROMPTS}) == len(PARITY_PROMPTS) == 8
    assert not {words(prompt) for prompt in PARITY_PROMPTS} & {words(prompt) for prompt in read_prompts()}


@pytest.mark.parametrize("external_from", [1, 2**30])
def test_a_worse_graph_is_refused_with_scale_and_layer(tools: Tools, tmp_path: Path, external_from: int) -> None:
    """The error is within the tolerance of single outputs, but breaches a limit on logits."""
    options = BuildOptions(CHECKPOINT, tmp_path / "bundle", Precision.FP16, external_from=external_from)
    judge = Judge()
    tools = replace(tools, judge=judge)
    before = build(options, tools=tools).quality
    assert judge.seen == [before]
    shutil.rmtree(options.out)
    limits = limits_for(Precision.FP16, max_kl=4 * max(scale.kl for scale in judge.seen[0].scales))
    worse = spoilt(tools, "transformer", "transformer.blocks.1.mlp.down.weight", 0.01)
    with pytest.raises(ParityError) as caught:
        build(replace(options, limits=limits), tools=worse)
    scales = judge.seen[1].scales
    worst = max(range(len(scales)), key=lambda scale: scales[scale].kl)
    said = re.fullmatch(
        rf"graph transformer, scale {worst}: .*KL divergence \S+, limit \S+; the worst layer is "
        r"transformer\.blocks\.1\.mlp\.down\.weight, whose error grows from (\S+) to (\S+); nothing was written\. "
        r"Try --precision fp32; where the pictures are good enough, move the limit \(--min-top1, --max-kl, "
        r"--min-psnr\)",
        str(caught.value),
    )
    assert said, str(caught.value)
    assert float(said[1]) < 2e-3 < 5e-3 < float(said[2]) < 2e-2
    assert list(tmp_path.iterdir()) == []


def test_a_worse_decoder_is_refused(tools: Tools, tmp_path: Path) -> None:
    """The limit of the decoder applies to random weights too."""
    options = BuildOptions(CHECKPOINT, tmp_path / "bundle", Precision.FP16)
    worse = spoilt(tools, "decoder", "decoder.conv_in.weight", 0.001)
    build(options, tools=worse)
    found = open_bundle(tmp_path / "bundle").manifest.quality
    assert found is not None and found.decoder_psnr is not None and 40 < found.decoder_psnr < 80
    limits = replace(LIMITS[Precision.FP16], min_psnr=found.decoder_psnr + 1)
    message = (
        rf"^graph decoder: PSNR {found.decoder_psnr:.1f} dB, limit {limits.min_psnr:g} dB; the worst layer is "
        r"decoder\.conv_in\.weight, whose error grows from \d\.\de-04 to \d\.\de-0[34]; nothing was written"
    )
    with pytest.raises(ParityError, match=message):
        build(replace(options, out=tmp_path / "other", limits=limits), tools=worse)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_output_beyond_tolerance_names_scale_and_layer(tools: Tools, tmp_path: Path) -> None:
    worse = spoilt(tools, "transformer", "transformer.blocks.0.attn.proj.weight", 2.0)
    message = (
        r"^graph transformer, scale \d, tensor \S+: error \S+ against the reference, tolerance 2e-02 at fp16; "
        r"the worst layer is transformer\.blocks\.0\.attn\.proj\.weight, whose error grows from \S+ to \S+; nothing was"
    )
    with pytest.raises(ParityError, match=message):
        build(BuildOptions(CHECKPOINT, tmp_path / "bundle", Precision.FP16), tools=worse)
    assert list(tmp_path.iterdir()) == []


def test_random_weights_are_reported_and_not_judged(tools: Tools, tmp_path: Path) -> None:
    worse = spoilt(tools, "transformer", "transformer.blocks.1.mlp.down.weight", 0.01)
    limits = limits_for(Precision.FP16, max_kl=0.0)
    manifest = build(BuildOptions(CHECKPOINT, tmp_path / "bundle", Precision.FP16, limits=limits), tools=worse)
    assert manifest.quality is not None and manifest.quality.prompts == 1
    assert max(scale.kl for scale in manifest.quality.scales) > 0
    card = (tmp_path / "bundle" / "README.md").read_text("utf-8")
    assert "Noise stood in for prompts, as there is no text model: the limits on logits were not applied." in card


def test_the_card_shows_every_figure_and_limit(tools: Tools, tmp_path: Path) -> None:
    limits = Limits(0.9, 0.125, 30.0)
    manifest = build(BuildOptions(CHECKPOINT, tmp_path / "bundle", Precision.FP16, limits=limits), tools=tools)
    assert manifest.quality is not None and manifest == open_bundle(tmp_path / "bundle").manifest
    card = (tmp_path / "bundle" / "README.md").read_text("utf-8")
    for scale, (side, q) in enumerate(zip(manifest.patch_nums, manifest.quality.scales, strict=True)):
        unguided = f"{side**2} | {q.cosine:.6f} | {q.largest_error:.1e} | {100 * q.top_1:.4g} % | {q.kl:.1e}"
        assert f"\n| {scale} | {unguided} | {100 * q.guided_top_1:.4g} % | {q.guided_kl:.1e} |\n" in card
    assert "\n| limit | | | | 90 % | 1.2e-01 | | |\n" in card
    assert f"\nDecoder, worst picture: {manifest.quality.decoder_psnr:.1f} dB, limit 30 dB.\n" in card
