"""The examples of README.md and of docstrings are Python that a strict type checker takes; warnings are exported."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import get_overloads

import pytest

import hart_edge
from hart_edge.engines.loading import load
from hart_edge.errors import EngineError
from tests.conftest import FOLDERS
from tests.runtime.words_bundle import make_words_bundle

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
EXPECTED = """
from typing import assert_type
from PIL import Image
import hart_edge
from hart_edge import Context, Pipeline

def check(pipe: Pipeline, context: Context, prompts: list[str], either: list[str | Context]) -> None:
    assert_type(hart_edge.generate("a red heart", seed=7, cfg_scale=3), Image.Image)
    assert_type(hart_edge.generate(["a red heart"], seed=[7]), list[Image.Image])
    assert_type(hart_edge.generate(prompts), list[Image.Image])
    assert_type(pipe.generate(context), Image.Image)
    assert_type(pipe.generate((context, context)), list[Image.Image])
    assert_type(pipe.generate(either, top_k=5), list[Image.Image])
    with hart_edge.load("bundles/mine") as opened:
        assert_type(opened, Pipeline)
        assert_type(opened.reconstruct(Image.new("RGB", (8, 8))).discrete, Image.Image)
"""


def test_examples_pass_mypy_strict(tmp_path: Path) -> None:
    """With the cache that `make lint` has left, where it has."""
    examples = BLOCK.findall((ROOT / "README.md").read_text("utf-8"))
    assert examples
    files = []
    for number, text in enumerate([*examples, EXPECTED]):
        files.append(tmp_path / f"example_{number}.py")
        files[-1].write_text(text, "utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", ROOT / "pyproject.toml", *files]
    done = subprocess.run([str(each) for each in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_warning_is_exported() -> None:
    found = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef) and any("Warning" in ast.unparse(base) for base in node.bases):
                    found.add(node.name)
    assert found == {"PromptTruncatedWarning", "RandomWeightsWarning"} and found <= set(hart_edge.__all__)
    assert all(issubclass(getattr(hart_edge, name), UserWarning) for name in found)


@pytest.mark.parametrize("name", ["generate", "load", "Pipeline", "Context", "Event", "Reconstruction"])
def test_help_is_enough_to_work_from(name: str) -> None:
    """A docstring with an example, and every keyword with its meaning."""
    thing = getattr(hart_edge, name)
    text = pydoc.render_doc(thing, renderer=pydoc.plaintext)
    if name in ("generate", "load", "Pipeline", "Context"):
        assert re.search(r"(hart_edge|pipe)\.\w+\(", inspect.getdoc(thing) or ""), name
    if name in ("generate", "Pipeline"):
        for setting in ("cfg_scale", "top_k", "top_p", "smooth", "seed"):
            assert f"{setting}" in text
    assert "hart_edge.generate(" in (hart_edge.__doc__ or "") and "hart_edge.load(" in (hart_edge.__doc__ or "")


def test_examples_in_docstrings_are_python() -> None:
    for name in hart_edge.__all__:
        for line in (inspect.getdoc(getattr(hart_edge, name)) or "").splitlines():
            if line.startswith("    ") and re.match(r" +(\w+(, \w+)* = )?(pipe|hart_edge)\.", line):
                ast.parse(line.strip())


def test_generate_has_an_overload_for_one_and_for_many() -> None:
    for function in (hart_edge.generate, hart_edge.Pipeline.generate):
        returns = [inspect.signature(each).return_annotation for each in get_overloads(inspect.unwrap(function))]
        assert returns == ["Image.Image", "list[Image.Image]"]


def test_a_pipeline_closes_at_the_end_of_its_block(tmp_path: Path) -> None:
    with load(make_words_bundle(tmp_path / "words")) as pipe:
        first = pipe.generate("w1").tobytes()
    for call in (lambda: pipe.generate("w1"), lambda: list(pipe.stream("w1"))):
        with pytest.raises(EngineError, match="expected an open pipeline, found one that was closed"):
            call()
    pipe.close()
    with warnings.catch_warnings(), pytest.raises(ZeroDivisionError):
        warnings.simplefilter("error")
        with load(tmp_path / "words") as again:
            assert again.generate("w1").tobytes() == first
            _ = 1 / 0
