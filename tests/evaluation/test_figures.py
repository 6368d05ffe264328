"""Retrieval and Frechet distance in cases with known results, and Inception weights that are refused."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from torchmetrics.image.fid import FrechetInceptionDistance

from hart_edge.data.pictures import Pictures
from hart_edge.errors import CheckpointError, HartEdgeError, InputError
from hart_edge.evaluation.evaluate import familiar_split
from hart_edge.evaluation.frechet import frechet_distance, open_inception
from hart_edge.evaluation.retrieval import recall, retrieval


def vectors(count: int, seed: int, width: int = 64) -> torch.Tensor:
    return normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_identical_features_are_all_retrieved() -> None:
    found = retrieval(vectors(250, 0), vectors(250, 0))
    assert found.at == {1: 1.0, 5: 1.0} and found.spread == {1: 0.0, 5: 0.0}
    assert (found.among, found.groups) == (100, 10)  # five permutations of two groups


def test_unrelated_features_are_retrieved_by_chance() -> None:
    found = retrieval(vectors(1000, 0), vectors(1000, 1))
    assert found.groups == 50
    assert found.at[1] == pytest.approx(0.01, abs=0.005) and found.at[5] == pytest.approx(0.05, abs=0.01)
    assert 0.005 < found.spread[1] < 0.02  # a binomial share of 100 has 0.01
    assert retrieval(vectors(1000, 0), vectors(1000, 1), seed=1).at != found.at


def test_few_rows_are_one_group() -> None:
    found = retrieval(vectors(20, 0), vectors(20, 0).flip(0))
    assert (found.among, found.groups, found.at[1]) == (20, 1, 0.0)
    with pytest.raises(ValueError, match="at least 2 rows"):
        retrieval(vectors(1, 0), vectors(1, 0))


def test_rank_and_ties() -> None:
    similar = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.3, 0.4, 0.2]])
    assert recall(similar, 1) == pytest.approx(1 / 3)
    assert recall(similar, 2) == pytest.approx(2 / 3)
    alike = torch.tensor([[0.5, 0.5], [0.5, 0.5]])  # two equal prompts: each is ranked half a place lower
    assert recall(alike, 1) == 1.0 and recall(torch.full((5, 5), 0.5), 1) == 0.0


def test_frechet_distance_of_known_gaussians() -> None:
    """For diagonal covariances, which whitened sets have exactly, it is |mean difference|^2 + sum (s - t)^2."""
    random = np.random.default_rng(0)
    samples = []
    for _ in range(2):
        x = random.standard_normal((400, 3))
        x -= x.mean(0)
        samples.append(torch.from_numpy(x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T))
    shift, s, t = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 2.5, 1.0])
    found = frechet_distance(samples[0] * s, samples[1] * t + shift)
    assert found == pytest.approx(float(shift.square().sum() + (s - t).square().sum()), rel=1e-6)
    assert frechet_distance(samples[0], samples[0]) == pytest.approx(0, abs=1e-9)


def test_inception_weights_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.pth: no such file; expected weights-inception-2015-12-05"):
        open_inception(tmp_path / "nowhere.pth")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(sys.exit))
    with pytest.raises(CheckpointError, match=r"code.pth: "):
        open_inception(tmp_path / "code.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")

    def refuse(*arguments: object, **named: object) -> FrechetInceptionDistance:
        assert named["feature_extractor_weights_path"] == str(tmp_path / "other.pth")
        raise error

    error: Exception = RuntimeError("Missing key(s) in state_dict")
    with pytest.raises(InputError, match=r"expected the weights .* of torch-fidelity, found others"):
        open_inception(tmp_path / "other.pth", refuse)
    error = ModuleNotFoundError("no torch-fidelity")
    with pytest.raises(HartEdgeError, match=r"pip install 'hart-edge\[inception\]', or leave --inception out"):
        open_inception(tmp_path / "other.pth", refuse)


def test_familiar_prompts_are_spread_over_groups() -> None:
    """The first picture of a group, and of the groups as many as are wanted; without groups pictures themselves."""
    names = tuple(f"{number}.png" for number in range(8))
    captions = tuple((f"caption {number}", "another") for number in range(8))
    images = np.zeros((8, 2, 2, 3), np.uint8)
    grouped = Pictures(images, captions, names, tuple("aabbbccd"), (1.0,) * 8)
    assert familiar_split("familiar", grouped, 4).prompts == tuple(f"caption {number}" for number in (0, 2, 5, 7))
    assert familiar_split("familiar", grouped, 2).prompts == ("caption 0", "caption 7")
    assert familiar_split("familiar", grouped, 99).prompts == familiar_split("familiar", grouped, 4).prompts
    plain = Pictures(images, captions, names)
    assert familiar_split("familiar", plain, 3).prompts == ("caption 0", "caption 4", "caption 7")
