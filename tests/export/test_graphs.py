"""The plan, run with the graph modules in torch, draws what the plain reference loop draws."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hart_edge.bundle.manifest import ComponentName
from hart_edge.bundle.settings import Settings, Speed
from hart_edge.export.graphs import build_graphs
from hart_edge.runtime.loop import Array
from tests.export.reference_walk import largest, run_reference, tiny_inputs, tiny_model, walk_plan
from tests.reference.tiny_hart import LLM

PLAIN = {"disable_aln": True, "shared_aln": False}
SHARED = {"disable_aln": True, "shared_aln": True}
ADAPTIVE = {"disable_aln": False}
SMOOTH, SAMPLED = Settings(), Settings(cfg_scale=2.0, top_k=7, top_p=0.8, smooth=False)

FLAVOURS = {
    "plain, 4 phi": (PLAIN, {}, SMOOTH),
    "plain, 4 phi, sampled": (PLAIN | {"patch_nums": [1, 2, 3, 4, 5]}, {}, SAMPLED),
    "shared, 1 phi, two scales": (SHARED | {"patch_nums": [1, 2]}, {"share_quant_resi": 1}, SMOOTH),
    "shared, phi of each scale": (SHARED | {"patch_nums": [1, 3, 4, 7]}, {"share_quant_resi": 0}, SMOOTH),
    "adaptive from the maximum, 1 phi": (ADAPTIVE, {"share_quant_resi": 1}, SMOOTH),
    "adaptive from the average, no phi": (ADAPTIVE | {"sep_aln_pooling_mode": "avg"}, {"quant_resi": 0.0}, SAMPLED),
    "bare": (
        PLAIN | {"use_context_norm": False, "use_timestep_embed": False, "attn_l2_norm": False, "depth": 1},
        {},
        SMOOTH,
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_walk_is_the_reference_loop(tmp_path: Path, flavour: str) -> None:
    llm, tokenizer, settings = FLAVOURS[flavour]
    model = tiny_model(tmp_path, 3, llm=llm, tokenizer=tokenizer)
    inputs, seeds = tiny_inputs(model, (4, 2)), [11, 2**64 - 1]
    seen: dict[str, list[dict[str, Tensor]]] = {}

    def observe(graph: str, _: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        seen.setdefault(graph, []).append({name: torch.from_numpy(array) for name, array in outputs.items()})

    image = walk_plan(model, inputs, seeds, settings, observe)
    results, expected = run_reference(model, inputs, seeds, settings)
    scales = len(model.patch_nums)
    assert {graph: len(calls) for graph, calls in seen.items()} == {
        "context": 1,
        "transformer": scales,
        "tokens": scales,
        "latent": scales - 1,
        "embed": scales - 1,
        "residual": 1,
        "decoder": 1,
    }
    for scale, result in enumerate(results):
        tokens = seen["tokens"][scale]
        assert largest(tokens["logits"], result.logits) <= 1e-3, scale
        assert torch.equal(tokens["indices"], result.indices), scale
        update = seen["latent"][scale] if scale < scales - 1 else seen["residual"][0]
        assert largest(update["f_hat"], result.f_hat) <= 1e-4, scale
        if result.next is not None:
            assert largest(update["next"], result.next.flatten(2).transpose(1, 2)) <= 1e-4, scale
    assert largest(seen["residual"][0]["residual"].flatten(0, 1), results[-1].residual) <= 1e-4
    assert largest(image, expected) <= 1e-4
    assert expected.std() > 0.05  # a flat picture would hide differences


@pytest.mark.parametrize("speed", [Speed.BALANCED, Speed.FAST])
@pytest.mark.parametrize("llm", [PLAIN, ADAPTIVE])
def test_walk_at_a_speed_is_the_reference_loop(tmp_path: Path, llm: dict, speed: Speed) -> None:
    """Two images, five scales, four denoising steps: half of them, no unconditional branch in the last scales, and at
    fast three tokens of four in two of them."""
    model = tiny_model(tmp_path, 3, llm=llm | {"patch_nums": [1, 2, 3, 4, 5], "num_sampling_steps": 4})
    inputs, seeds = tiny_inputs(model, (4, 2)), [11, 12]
    chosen: list[Tensor] = []

    def observe(graph: str, _: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        if graph == "tokens":
            chosen.append(torch.from_numpy(outputs["indices"].copy()))

    image = walk_plan(model, inputs, seeds, Settings(speed=speed, **SAMPLED), observe)
    results, expected = run_reference(model, inputs, seeds, Settings(speed=speed, **SAMPLED))
    assert all(torch.equal(found, result.indices) for found, result in zip(chosen, results, strict=True))
    assert largest(image, expected) <= 5e-3  # a channel of the residual that is about to be clipped goes either way
    exact = walk_plan(model, inputs, seeds, SAMPLED, lambda *_: None)
    assert largest(image, exact) > 0.01


def test_only_a_speed_that_leaves_tokens_out_has_a_graph_that_selects_them(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "three", 3, llm={"patch_nums": [1, 2, 3]})
    assert [("select" in build_graphs(model, None, (speed,))) for speed in Speed] == [False, False, True]
    short = tiny_model(tmp_path / "two", 3, llm={"patch_nums": [1, 2]})  # no scale has two others before it
    assert "select" not in build_graphs(short, None, tuple(Speed))


@pytest.mark.parametrize("speed", [Speed.EXACT, Speed.FAST])
def test_two_images_at_once_equal_two_single_ones(tmp_path: Path, speed: Speed) -> None:
    model, settings = tiny_model(tmp_path, 4, llm=SHARED), Settings(speed=speed, **SMOOTH)
    both, seeds = tiny_inputs(model, (6, 1)), [5, 6]
    together = walk_plan(model, both, seeds, settings, lambda *_: None)
    alone = []
    for i, seed in enumerate(seeds):
        one = {name: tensor[i : i + 1] for name, tensor in both.items()}
        alone.append(walk_plan(model, one, [seed], settings, lambda *_: None))
    assert together.shape == (2, 3, 48, 48)
    assert largest(together, torch.cat(alone)) <= 1e-4
    assert largest(alone[0], alone[1]) > 0.1


def test_pixels_are_the_rounded_image(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, 4, llm={"patch_nums": [1, 2]})
    decoder = build_graphs(model, None)["decoder"]
    f_hat = torch.randn(2, 8, 2, 2, generator=torch.Generator().manual_seed(0)) * 3
    with torch.no_grad():
        image, pixels, finite = decoder(f_hat)
        assert finite.tolist() == [True, True]
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels, (model.decode(f_hat) * 255).round().to(torch.uint8).permute(0, 2, 3, 1))
        assert image.min() >= 0 and image.max() <= 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_finite_is_false_for_an_image_with_nan_or_infinity(tmp_path: Path, value: float) -> None:
    decoder = build_graphs(tiny_model(tmp_path, 4, llm={"patch_nums": [1, 2]}), None)["decoder"]
    f_hat = torch.zeros(3, 8, 2, 2)
    f_hat[1, 2, 0, 1] = value
    with torch.no_grad():
        assert decoder(f_hat)[2].tolist() == [True, False, True]


@pytest.mark.parametrize("llm", [PLAIN, SHARED, ADAPTIVE])
def test_specification(tmp_path: Path, llm: dict) -> None:
    graphs = build_graphs(tiny_model(tmp_path, 4, llm=llm), None, tuple(Speed))
    assert list(graphs) == [name for name in ComponentName if name != "text_model"]
    transformer = graphs["transformer"]
    modulated = llm is not PLAIN
    names = [tensor.name for tensor in transformer.inputs]
    assert ("modulation" in names) == modulated
    assert ("modulation" in [tensor.name for tensor in graphs["context"].outputs]) == modulated
    past = [name for name in names if name.startswith("past_")]
    block = ["past_key.{}", "past_value.{}", "past_null_key.{}", "past_null_value.{}"]
    assert past == [name.format(i) for i in (0, 1) for name in block]
    shapes = {tensor.name: tensor.shape for tensor in (*transformer.inputs, *transformer.outputs)}
    assert shapes["x"] == ("R", "n", LLM["embed_dim"])
    assert shapes["hidden"] == ("B", "n", LLM["embed_dim"]) and shapes["null_hidden"] == ("U", "n", LLM["embed_dim"])
    assert shapes["past_key.1"] == ("N", "B", 2, 16) and shapes["past_null_key.1"] == ("M", "U", 2, 16)
    assert shapes["value.1"] == ("n", "B", 2, 16) and shapes["null_value.1"] == ("n", "U", 2, 16)
    made = {tensor.name: tensor.shape for tensor in graphs["context"].outputs}
    assert made["x"] == ("B", 6, LLM["embed_dim"]) and made["null_hidden"] == ("B", 1, LLM["embed_dim"])
    assert made["null_key.1"] == made["null_value.0"] == (1, "B", 2, 16)
    for graph in graphs.values():
        assert not graph.training
        assert len({tensor.name for tensor in (*graph.inputs, *graph.outputs)}) == len(graph.inputs + graph.outputs)
