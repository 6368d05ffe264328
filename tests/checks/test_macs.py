"""Multiply-accumulates: counted on the reference, compared with sums by hand and with the paper's figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hart_edge.checks.macs import MacCount, count_macs
from hart_edge.cli.macs import as_text, read_configs, totals
from hart_edge.errors import BuildError, CheckpointError
from hart_edge.reference.presets import PRESETS, configs
from tests.cli.command_line import Run
from tests.conftest import GOLDEN


def by_component(counts: list[MacCount], component: str) -> list[MacCount]:
    return [each for each in counts if each.component == component]


@pytest.fixture(scope="module")
def published() -> list[MacCount]:
    return count_macs(*configs("hart-0.7b-256"))


@pytest.mark.long
def test_the_transformer_by_hand(published: list[MacCount]) -> None:
    """Each token costs 4 C^2 in attention's layers and 3 C * 4096 in the MLP; each pair of tokens costs 2 C."""
    dim, hidden, depth, sides = 1536, 4096, 24, PRESETS["hart-0.7b-256"]
    lengths = [300, *(side * side for side in sides[1:])]
    found = by_component(published, "transformer")
    assert [each.scale for each in found] == list(range(10))
    for scale, count in enumerate(found):
        n, seen = lengths[scale], sum(lengths[: scale + 1])
        assert count.layers == n * (4 * dim**2 + 3 * dim * hidden) * depth, scale
        assert count.attention == 2 * n * seen * dim * depth, scale
        assert count.guided
    assert sum(each.layers for each in by_component(published, "tokens")) == sum(s * s for s in sides) * dim * 4096


def test_the_residual_by_hand(published: list[MacCount]) -> None:
    (found,) = by_component(published, "residual")
    width, tokens, steps, z = 1024, 256, 8, 32
    step = z * width + 6 * (2 + 3) * width**2 + 2 * width**2 + width * 2 * z
    assert found.layers == tokens * (z * 1536 + 1536 * width + steps * step)
    assert (found.scale, found.attention, found.guided) == (9, 0, True)


@pytest.mark.long
def test_convolutions_by_hand() -> None:
    """A decoder of one width W, where every convolution costs 9 W^2 per position."""
    transformer, tokenizer = configs("hart-0.7b-256")
    tokenizer = replace(tokenizer, ch=32, ch_mult=(1, 1, 1, 1, 1))
    (found,) = by_component(count_macs(transformer, tokenizer), "decoder")
    width, z, positions = 32, 32, [256 << (2 * level) for level in range(5)]  # 16^2 to 256^2
    conv = 9 * width * width
    blocks = sum(6 * conv * n for n in positions) + 4 * conv * positions[0]  # three per level, two in the middle
    upsamples = sum(conv * n for n in positions[1:])
    projections = 4 * 4 * width * width * positions[0]  # q, k, v, out of the middle block and of three in its level
    ends = (9 * z * z + 9 * z * width) * positions[0] + 9 * width * 3 * positions[-1]
    assert found.layers == blocks + upsamples + projections + ends
    assert found.attention == 4 * 2 * positions[0] ** 2 * width


@pytest.mark.long
@pytest.mark.parametrize(("side", "paper"), [(512, 3.2e12), (1024, 12.5e12)])
def test_the_papers_figures(side: int, paper: float) -> None:
    """docs/macs.md: all layers, encoder included, of one branch without attention products, are 1 and 1.3 % above."""
    counted = totals(count_macs(*configs(f"hart-0.7b-{side}")))["layers of all components, one half"]
    assert paper < counted < 1.015 * paper


def test_guidance_doubles_the_guided_components() -> None:
    counts = [MacCount("transformer", 0, 10, 5, True), MacCount("decoder", None, 7, 1, False)]
    counts.append(MacCount("encoder", None, 100, 0, False))
    assert totals(counts) == {
        "picture, guided": 38,
        "picture, one half": 23,
        "layers of all components, one half": 117,
    }
    assert as_text(counts)[1].split() == ["transformer", "0", "0.000", "0.000", "twice"]


@pytest.mark.long
def test_the_command(run: Run) -> None:
    status, out, err = run("info", "--macs", GOLDEN / "adaln", "--json")
    assert (status, err) == (0, "")
    said = json.loads(out)
    assert {"component", "scale", "layers", "attention", "guided"} == set(said["counts"][0])
    assert said["totals"]["picture, guided"] > said["totals"]["picture, one half"] > 0
    status, out, err = run("info", "--macs", "hart-0.7b-256")
    assert status == 0 and "picture, guided" in out


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    for named in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match=r"expected a checkpoint folder .*, or one of hart-0\.7b-256, hart-0"):
            read_configs(named)
    with pytest.raises(BuildError, match=r"preset: expected one of hart-0\.7b-256, .*, found 'hart-7b'"):
        configs("hart-7b")
