"""Recipes: JSON and back, refusals and their messages, settings, differences."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hart_edge.errors import CheckpointError
from hart_edge.training.errors import TrainingError
from hart_edge.training.recipe import Optimisation, differences, from_json, read_recipe, to_json
from hart_edge.training.tokenizer.recipe import TokenizerRecipe
from tests.training.tokenizer.tiny_tokenizer import RECIPE


def test_a_recipe_survives_json() -> None:
    assert from_json(TokenizerRecipe, json.loads(json.dumps(to_json(RECIPE)))) == RECIPE


def test_left_out_fields_keep_their_defaults() -> None:
    assert from_json(TokenizerRecipe, {"optimisation": {"steps": 9, "warmup": 3}}) == TokenizerRecipe(
        Optimisation(steps=9, warmup=3)
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "recipe: expected an object, found []"),
        ({}, "recipe: missing 1 required positional argument: 'optimisation'; add it to the recipe"),
        ({"optimisation": {"steps": 9, "rate": 1}}, "recipe.optimisation: expected the fields steps, batch, "),
        ({"optimisation": {"steps": 9.5}}, "recipe.optimisation.steps: expected int, found 9.5; change the recipe"),
        ({"optimisation": {"steps": True}}, "recipe.optimisation.steps: expected int, found True; change the recipe"),
        ({"optimisation": {"steps": 9, "clip": "1"}}, "recipe.optimisation.clip: expected float, found '1'"),
        ({"optimisation": {"steps": 9, "clip": float("nan")}}, "recipe.optimisation.clip: expected float, found nan"),
        ({"optimisation": {"steps": 9, "betas": 0.9}}, "recipe.optimisation.betas: expected a list of 2, found 0.9"),
    ],
)
def test_malformed_json_recipes(raw: Any, message: str) -> None:
    with pytest.raises(TrainingError) as caught:
        from_json(TokenizerRecipe, raw)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimisation.steps=0", "optimisation.steps: expected at least 1, found 0; change the recipe"),
        ("optimisation.warmup=6", "optimisation.warmup: expected 0 to below steps (6), found 6; change the recipe"),
        ("optimisation.betas=[0.9, 1]", "optimisation.betas: expected two numbers from 0 to below 1, found (0.9, 1.0)"),
        ("optimisation.betas=[0.9]", "recipe.optimisation.betas: expected a list of 2, found [0.9]; change the recipe"),
        ("alternating=1.5", "recipe.alternating: expected 0 to 1, found 1.5; change the recipe"),
        ("side=48", "recipe.side: expected 32, which is 16 times the last of patch_nums, found 48"),
        ("tokenizer.patch_nums=[1,2,3]", "recipe.side: expected 48, which is 16 times the last of patch_nums"),
        ("early_side=24", "recipe.early_side: expected one of [16, 32] (16 times a divisor of 2), or null"),
        ("losses.edges=-1", "losses.edges: expected 0 or above, found -1.0; change the recipe"),
        ("codebook.every=0", "codebook.every: expected at least 1, found 0; change the recipe"),
        ("adversarial.ch=12", "adversarial.ch: expected a multiple of 8, at least 8, found 12; change the recipe"),
        ("seed", "--set seed: expected GROUP.NAME=VALUE, as in optimisation.steps=1000"),
        ("optimisation=3", "--set optimisation.optimisation: expected an object, found 3"),
    ],
)
def test_contradicting_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(TrainingError) as caught:
        read_recipe(TokenizerRecipe, RECIPE, settings=[setting])
    assert str(caught.value).startswith(message)


def test_an_impossible_architecture_is_refused() -> None:
    with pytest.raises(CheckpointError, match="ch: expected a multiple of 32 "):
        read_recipe(TokenizerRecipe, RECIPE, settings=["tokenizer.norm_groups=32"])


def test_a_file_is_changed_by_settings(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"alternating": 0.25, "optimisation": {"batch": 2}}), "utf-8")
    found = read_recipe(TokenizerRecipe, RECIPE, file, ["optimisation.seed=7", "early_side=16"])
    optimisation = dataclasses.replace(RECIPE.optimisation, batch=2, seed=7)
    assert found == dataclasses.replace(RECIPE, alternating=0.25, early_side=16, optimisation=optimisation)


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text("{steps: 3}", "utf-8")
    with pytest.raises(TrainingError) as caught:
        read_recipe(TokenizerRecipe, RECIPE, file)
    assert str(caught.value).startswith(f"{file}: expected a recipe in JSON, found Expecting property name")


def test_differences_name_the_fields() -> None:
    then, now = to_json(RECIPE), to_json(dataclasses.replace(RECIPE, alternating=1.0))
    now["optimisation"]["seed"] = 6
    assert differences(then, now) == ["alternating: 0.5, 1.0", "optimisation.seed: 5, 6"]
    assert differences(then, then) == []
