"""Prompts in, pictures out: the same bytes for the same seed by every way of asking, and no picture from a failure.

Tests that need meaningful pictures run on the shipped model, the others on the tiny bundle.
"""

import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from hart_edge.bundle.manifest import Precision
from hart_edge.engines.loading import load
from hart_edge.errors import EngineError, GenerationError, InputError
from hart_edge.runtime.context import Context
from hart_edge.runtime.loop import Array, Runner
from hart_edge.runtime.pipeline import Event, Pipeline
from hart_edge.runtime.prompt_tokenizer import PromptTruncatedWarning
from tests.bundle.corrupt_bundles import graph_edit
from tests.bundle.corrupt_manifests import put
from tests.conftest import GOLDEN, BuildOnce
from tests.runtime.pictures import PROMPTS, array
from tests.runtime.words_bundle import make_words_bundle


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words_bundle(tmp_path_factory.mktemp("pristine") / "tiny")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may change"""
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))


@pytest.fixture(scope="module")
def tiny(pristine: Path) -> Pipeline:
    return load(pristine)


@pytest.fixture(scope="module")
def wordless(build_once: BuildOnce) -> Pipeline:
    """A bundle that takes a context array: T 10, D 56."""
    return load(build_once(GOLDEN / "plain", Precision.FP32))


class Watched:
    """A runner that records the calls of another one, and can spoil its results."""

    def __init__(self, runner: Runner, *, finite: bool = True, failing: str = "") -> None:
        self.runner, self.finite, self.failing, self.graphs = runner, finite, failing, list[str]()

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self.graphs.append(graph)
        if graph == self.failing:
            inputs = {name: value[..., :0] for name, value in inputs.items()}  # a shape that no graph takes
        self.runner.run(graph, inputs, outputs)
        if "finite" in outputs and not self.finite:
            outputs["finite"][:] = False


# One picture, many pictures.


def test_a_prompt_gives_an_image_of_the_bundles_size(tiny: Pipeline) -> None:
    image = tiny.generate("w1 w2")
    assert isinstance(image, Image.Image)
    assert image.mode == "RGB" and image.size == (32, 32)


def test_each_picture_of_a_list_equals_that_of_its_prompt(shipped: Pipeline) -> None:
    seeds = [5, 0, 2**64 - 1]
    together = shipped.generate(list(PROMPTS[:3]), seed=seeds)
    assert isinstance(together, list) and len(together) == 3
    for prompt, seed, image in zip(PROMPTS, seeds, together, strict=False):
        alone = shipped.generate(prompt, seed=seed)
        assert image.tobytes() == alone.tobytes(), prompt


def test_one_seed_applies_to_a_whole_list(tiny: Pipeline) -> None:
    first, second = tiny.generate(("w1", "w1"), seed=3)
    assert first.tobytes() == second.tobytes()
    assert tiny.generate([]) == []


def test_seeds_settings_and_prompts_matter(shipped: Pipeline) -> None:
    base = array(shipped.generate(PROMPTS[0], seed=1))
    changes: list[dict[str, Any]] = [{"seed": 2}, {"cfg_scale": 8}, {"top_k": 1}, {"top_p": 1.0}, {"smooth": True}]
    for change in changes:
        other = array(shipped.generate(PROMPTS[0], **{"seed": 1, **change}))
        assert np.abs(base - other).mean() > 0.5, change
    assert np.abs(base - array(shipped.generate(PROMPTS[1], seed=1))).mean() > 5
    named = shipped.generate(PROMPTS[0], seed=1, cfg_scale=1, top_p=0.5, smooth=False, speed="exact")
    assert (array(named) == base).all()  # the bundle's defaults, given explicitly


# The stream.


def test_a_stream_reports_every_scale(shipped: Pipeline) -> None:
    events = list(shipped.stream(PROMPTS[1], seed=3))
    assert [(event.scale, event.scales, event.done) for event in events] == [(s, 7, s == 6) for s in range(7)]
    assert [event.image is None for event in events] == [True] * 6 + [False]
    final = events[-1].image
    assert final is not None
    previews = [event.preview() for event in events]
    assert {preview.size for preview in previews} == {(128, 128)}
    assert previews[-1].tobytes() == final.tobytes() == digestless(shipped, 3)
    away = [np.abs(array(preview) - array(final)).mean() for preview in previews]
    assert away[0] > away[5] > 0 and away[0] > 10  # previews approach the picture


def digestless(pipeline: Pipeline, seed: int) -> bytes:
    image = pipeline.generate(PROMPTS[1], seed=seed)
    assert isinstance(image, Image.Image)
    return image.tobytes()


def test_a_preview_changes_nothing(tiny: Pipeline) -> None:
    looked = None
    for event in tiny.stream("w5", seed=2):
        event.preview()
        looked = event.image
    assert looked is not None and looked.tobytes() == tiny.generate("w5", seed=2).tobytes()


def test_the_last_preview_is_the_image_even_without_asking_the_decoder(pristine: Path) -> None:
    pipeline = load(pristine)
    pipeline.runner = watched = Watched(pipeline.runner)
    *_, last = pipeline.stream("w1")
    assert last.preview() is last.image and watched.graphs.count("decoder") == 1


def test_closing_a_stream_stops_the_work(pristine: Path) -> None:
    pipeline = load(pristine)
    pipeline.runner = watched = Watched(pipeline.runner)
    stream: Iterator[Event] = pipeline.stream("w1 w2")
    assert watched.graphs == []  # the arguments were checked, but no graph was run
    assert next(stream).scale == 0
    done = list(watched.graphs)
    stream.close()
    assert done == watched.graphs == ["text_model", "transformer", "tokens", "latent"]
    assert next(stream, None) is None
    assert pipeline.generate("w1 w2").size == (32, 32)


def test_an_event_says_which_picture_and_scale_it_is(tiny: Pipeline) -> None:
    first, last = tiny.stream("w1")
    assert repr(first) == "Event(scale=0, scales=2, image=None)"
    assert first != last and len({first, last}) == 2


# No picture from a failure.


def test_a_decoder_that_saw_nan_gives_no_picture(pristine: Path) -> None:
    pipeline = load(pristine)
    pipeline.runner = Watched(pipeline.runner, finite=False)
    message = r"^the decoder produced NaN or infinity, so there is no picture; try another seed or a lower cfg_scale"
    with pytest.raises(GenerationError, match=message):
        pipeline.generate("w1")
    with pytest.raises(GenerationError, match=message):
        pipeline.generate(["w1", "w2"])
    stream = pipeline.stream("w1")
    with pytest.raises(GenerationError, match=message):
        next(stream).preview()
    with pytest.raises(GenerationError, match=message):
        next(stream)


def test_nan_in_the_weights_gives_no_picture(folder: Path) -> None:
    """From a weight of NaN to the message, with nothing patched."""

    def spoil(model: onnx.ModelProto) -> None:
        (codebook,) = (each for each in model.graph.initializer if each.name == "codebook")
        values = numpy_helper.to_array(codebook).copy()
        values[:, 0] = np.nan
        codebook.CopyFrom(numpy_helper.from_array(values, "codebook"))

    graph_edit(spoil, "graphs/tokens.onnx")(folder)
    with pytest.raises(GenerationError, match="NaN or infinity"):
        load(folder).generate("w1")


@pytest.mark.parametrize("graph", ["text_model", "latent", "decoder"])
def test_a_failing_graph_is_named(pristine: Path, graph: str) -> None:
    pipeline = load(pristine)
    pipeline.runner = Watched(pipeline.runner, failing=graph)
    with pytest.raises(EngineError, match=rf"^{graph}: ONNX Runtime failed while running"):
        pipeline.generate("w1")


# Bad input.


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (3, "prompt: expected a string, found int; pass the text to draw"),
        (None, "prompt: expected a string, found NoneType; pass the text to draw"),
        (b"w1", "prompt: expected a string, found bytes; pass the text to draw"),
        (["w1", 3], "prompt: expected a string, found int; pass the text to draw"),
        (np.array(["w1"]), "prompt: expected a string, found ndarray; pass the text to draw"),
        ("", "prompt: expected words, found an empty string; say what to draw, such as 'a red heart'"),
        (" \t\n", "prompt: expected words, found an empty string; say what to draw, such as 'a red heart'"),
        ("w1 \ud800", "prompt: not valid Unicode (surrogates not allowed); remove the lone surrogate"),
        ("no known word", "prompt: 'no known word' has no token of this model's tokenizer; use words it knows"),
    ],
)
def test_prompts_that_cannot_be_used(tiny: Pipeline, prompt: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        tiny.generate(prompt)
    assert str(caught.value) == message


def test_everything_is_checked_before_the_first_picture(pristine: Path) -> None:
    pipeline = load(pristine)
    pipeline.runner = watched = Watched(pipeline.runner)
    bad: list[tuple[Any, dict[str, Any], str]] = [
        (["w1", ""], {}, "found an empty string"),
        (["w1", "w2"], {"seed": [1]}, "expected one seed for each of 2 prompts, found 1"),
        ("w1", {"seed": [1, 2]}, "expected one seed for each of 1 prompts, found 2"),
        ("w1", {"seed": -1}, "found -1"),
        ("w1", {"cfg_scale": 101}, "cfg_scale: expected 0 to 100, found 101"),
        ("w1", {"top_k": 7}, "top_k: expected 1 to 6, found 7"),
        ("w1", {"top_p": 0}, "top_p: expected above 0 and at most 1, found 0"),
        ("w1", {"smooth": "no"}, "smooth: expected True, False or None"),
        ([], {"cfg_scale": "high"}, "cfg_scale: expected a number, found 'high'"),
    ]
    for prompt, given, message in bad:
        with pytest.raises(InputError, match=message):
            pipeline.generate(prompt, **given)
        if isinstance(prompt, str):
            with pytest.raises(InputError, match=message):
                pipeline.stream(prompt, **given)  # it raises at once, not at the first event
    assert watched.graphs == []


def test_a_long_prompt_is_truncated_with_a_warning(tiny: Pipeline) -> None:
    with pytest.warns(PromptTruncatedWarning) as caught:
        long = tiny.generate("w1 w2 w3 w4 w5 w6", seed=1)
    assert str(caught[0].message) == "the prompt has 6 tokens, the model reads 4: the first 4 are kept"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut = tiny.generate("w1 w2 w3 w4", seed=1)  # exactly as long as the context: no warning
    assert (array(long) == array(cut)).all()
    assert np.abs(array(long) - array(tiny.generate("w3 w4 w5 w6", seed=1))).max() > 0


def test_the_shipped_model_counts_tokens(shipped: Pipeline) -> None:
    with pytest.warns(PromptTruncatedWarning, match=r"has \d\d tokens, the model reads 24: the first 24 are kept"):
        shipped.stream("a red heart and " * 12)


# Bundles that take a context.


def context(**changed: Any) -> Context:
    random = np.random.default_rng(0)
    tokens = random.standard_normal((10, 56)).astype(np.float32)
    mask = np.arange(10) < 6
    return Context(**{"tokens": tokens, "mask": mask, **changed})


def test_a_context_gives_a_picture(wordless: Pipeline) -> None:
    image = wordless.generate(context(), seed=4)
    assert isinstance(image, Image.Image) and image.size == (112, 112)
    first, second = wordless.generate([context(), context()], seed=[4, 5])
    assert first.tobytes() == image.tobytes() != second.tobytes()
    half = context(tokens=context().tokens.astype(np.float64))
    assert wordless.generate(half, seed=4).tobytes() == image.tobytes()


def test_the_mask_matters(wordless: Pipeline) -> None:
    """Padding is attended to, as in the published model; the mask sets positions and weights of the pooled context."""
    other = context(mask=np.arange(10) < 2)
    assert np.abs(array(wordless.generate(other, seed=4)) - array(wordless.generate(context(), seed=4))).mean() > 0.5


def test_a_prompt_for_a_bundle_without_a_text_model(wordless: Pipeline) -> None:
    with pytest.raises(InputError) as caught:
        wordless.generate("a red heart")
    assert str(caught.value) == (
        f"bundle {wordless.manifest.name!r} holds no text model: expected a Context of tokens (10, 56) and mask (10,), "
        "found str; compute it with your text model, or build from a checkpoint with text_model/"
    )


def test_a_context_for_a_bundle_with_a_text_model(tiny: Pipeline) -> None:
    with pytest.raises(InputError, match="'tiny-2' holds a text model: expected a prompt, found a Context; pass"):
        tiny.generate(context())


NOT_FINITE = r"Context: expected finite tokens and at least one True in mask"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokens": np.zeros((9, 56), np.float32)}, r"tokens: expected float32 \(10, 56\), found float32 \(9, 56\)"),
        ({"tokens": np.zeros((1, 10, 56), np.float32)}, r"tokens: expected float32 .*, found float32 \(1, 10, 56\)"),
        ({"tokens": np.zeros((10, 56), np.int64)}, r"tokens: expected float32 \(10, 56\), found int64 \(10, 56\)"),
        ({"tokens": np.zeros((10, 56), np.complex64)}, r"tokens: expected float32 \(10, 56\), found complex64"),
        ({"tokens": [[1.0], [1.0, 2.0]]}, r"Context: expected two arrays, found something else \("),
        ({"tokens": None}, r"tokens: expected float32 \(10, 56\), found object \(\)"),
        ({"tokens": np.full((10, 56), np.nan, np.float32)}, NOT_FINITE),
        ({"tokens": np.full((10, 56), np.inf, np.float32)}, NOT_FINITE),
        ({"tokens": np.full((10, 56), 1e300)}, NOT_FINITE),  # infinite once it is float32
        ({"mask": np.ones(10, np.int64)}, r"mask: expected bool \(10,\), found int64 \(10,\)"),
        ({"mask": np.ones((10, 1), np.bool_)}, r"mask: expected bool \(10,\), found bool \(10, 1\)"),
        ({"mask": np.zeros(10, np.bool_)}, NOT_FINITE),
    ],
)
def test_contexts_that_cannot_be_used(wordless: Pipeline, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        wordless.generate(context(**changed))


# Bundles that cannot be loaded.


def test_a_bundle_for_an_engine_that_is_not_here(folder: Path) -> None:
    put("target", "name", value="tensorrt")(folder)
    with pytest.raises(
        EngineError, match="this bundle holds graphs for tensorrt, no engines; build them on this machine with"
    ):
        load(folder)


@pytest.mark.parametrize("threads", [0, "two"])
def test_bad_thread_counts(pristine: Path, threads: Any) -> None:
    with pytest.raises(EngineError, match="threads: expected an integer from 1 to 1024, or None, found"):
        load(pristine, threads=threads)
