"""hart_edge.h from a caller's side: handles, structures of other versions, wrong input, and messages of failures."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator
from ctypes import POINTER, byref, sizeof
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hart_edge.bundle.manifest import Precision
from tests.bundle.corrupt_bundles import graph_edit
from tests.bundle.corrupt_manifests import put
from tests.conftest import GOLDEN, BuildOnce
from tests.runtime.native.letters_bundle import make_letters_bundle
from tests.runtime.native.library import (
    Handle,
    Image,
    Info,
    NativeError,
    Options,
    Params,
    Status,
    every_scale,
    texts,
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_letters_bundle(tmp_path_factory.mktemp("pristine") / "tiny")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))


@pytest.fixture(scope="module")
def tiny(native: Any, pristine: Path) -> Iterator[Handle]:
    handle = Handle(native, pristine)
    yield handle
    handle.close()


@pytest.fixture(scope="module")
def shipped(native: Any, int8_bundle: Path) -> Iterator[Handle]:
    handle = Handle(native, int8_bundle)
    yield handle
    handle.close()


def failure(call: Any, *arguments: Any, **more: Any) -> NativeError:
    with pytest.raises(NativeError) as caught:
        call(*arguments, **more)
    return caught.value


# Handles.


def test_versions_and_statuses(native: Any) -> None:
    assert native.hart_edge_version() == b"0.1.0"
    assert native.hart_edge_abi_version() == 1
    texts_of = [native.hart_edge_status_text(status).decode() for status in Status]
    assert len(set(texts_of)) == 10 and texts_of[0] == "no error" and "unknown status" not in texts_of
    assert native.hart_edge_status_text(10) == native.hart_edge_status_text(-1) == b"unknown status"


def test_info(shipped: Handle, int8_bundle: Path) -> None:
    info = shipped.info()
    assert (info.image_size, info.scales, info.takes_prompt) == (128, 7, 1)
    assert (info.context_tokens, info.context_dim) == (24, 192)
    assert (info.cfg_scale, info.top_p, info.top_k, info.smooth) == (1.0, 0.5, 600, 0)
    assert (info.name, info.precision, info.target) == (b"hart-emoji-int8", b"int8", b"cpu")
    assert info.engine.startswith(b"ONNX Runtime 1.")
    assert 15e6 < info.memory < sum(each.stat().st_size for each in int8_bundle.rglob("*") if each.is_file()) + 12e6


def test_null_handles_do_not_crash(native: Any) -> None:
    native.hart_edge_close(None)
    native.hart_edge_image_free(None)
    native.hart_edge_cancel(None)
    assert native.hart_edge_last_error(None).startswith(b"expected memory, found none left")
    assert native.hart_edge_open(b"/", None, None) == Status.INVALID_ARGUMENT
    assert native.hart_edge_generate(None, None, None) == Status.INVALID_ARGUMENT
    assert native.hart_edge_get_info(None, byref(Info())) == Status.INVALID_ARGUMENT


def test_a_handle_whose_opening_failed(native: Any) -> None:
    pointer, images = ctypes.c_void_p(), (POINTER(Image) * 1)()
    assert native.hart_edge_open(b"/nowhere", None, byref(pointer)) == Status.BUNDLE_ERROR
    assert native.hart_edge_last_error(pointer).startswith(b"/nowhere: expected a bundle folder, found none")
    params = Params()
    native.hart_edge_default_params(params, sizeof(params))
    assert native.hart_edge_generate(pointer, params, images) == Status.INVALID_ARGUMENT
    assert b"found one whose opening failed" in native.hart_edge_last_error(pointer)
    assert native.hart_edge_get_info(pointer, byref(Info(struct_size=sizeof(Info)))) == Status.INVALID_ARGUMENT
    native.hart_edge_cancel(pointer)
    native.hart_edge_close(pointer)
    assert native.hart_edge_open(None, None, byref(pointer)) == Status.INVALID_ARGUMENT
    assert native.hart_edge_last_error(pointer).startswith(b"folder: expected a path, found NULL")
    native.hart_edge_close(pointer)


# Sizes of structures.


@pytest.mark.parametrize(("name", "structure"), [("params", Params), ("options", Options)])
def test_structures_of_other_versions(native: Any, tiny: Handle, pristine: Path, name: str, structure: Any) -> None:
    size, first = sizeof(structure), Params.speed.offset if structure is Params else sizeof(structure)
    fill = getattr(native, f"hart_edge_default_{name}")  # first: the size in the first version of the header
    assert fill(None, size) == fill(structure(), 0) == fill(structure(), first - 1) == Status.INVALID_ARGUMENT
    assert fill(structure(), first) == Status.OK

    class Newer(ctypes.Structure):
        _fields_ = (("known", structure), ("unknown", ctypes.c_uint64))

    newer = Newer(unknown=9)
    assert fill(ctypes.cast(byref(newer), POINTER(structure)), sizeof(newer)) == Status.OK
    assert newer.known.struct_size == sizeof(newer) and newer.unknown == 0

    def call() -> int:
        given = ctypes.cast(byref(newer), POINTER(structure))
        if name == "params":
            newer.known.prompt = b"ab"
            images = (POINTER(Image) * 1)()
            status = int(native.hart_edge_generate(tiny.pointer, given, images))
            native.hart_edge_image_free(images[0])
            return status
        pointer = ctypes.c_void_p()
        status = int(native.hart_edge_open(str(pristine).encode(), given, byref(pointer)))
        native.hart_edge_close(pointer)
        return status

    assert call() == Status.OK  # members that this version does not know are zero
    newer.unknown = 1
    assert call() == Status.INVALID_ARGUMENT
    newer.known.struct_size = 8
    assert call() == Status.INVALID_ARGUMENT
    if name == "params":
        assert (
            tiny.last_error()
            == f"params.struct_size: expected at least {first}, found 8; fill it with hart_edge_default_params"
        )


# Input that cannot be drawn: the messages are those of Python.


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"cfg_scale": 101.0},
            "cfg_scale: expected 0 to 100, found 101; 0 turns guidance off, the default is 4.5",
        ),
        ({"cfg_scale": -0.5}, "cfg_scale: expected 0 to 100, found -0.5;"),
        ({"cfg_scale": float("nan")}, "cfg_scale: expected a finite number, found nan"),
        ({"top_p": 0.0}, "top_p: expected above 0 and at most 1, found 0; 1 keeps every candidate"),
        ({"top_p": float("inf")}, "top_p: expected a finite number, found inf"),
        ({"top_k": 7}, "top_k: expected 1 to 6, found 7; 1 always takes the likeliest code"),
        ({"top_k": 0}, "top_k: expected 1 to 6, found 0;"),
        ({"smooth": 2}, "smooth: expected 1, 0 or HART_EDGE_SMOOTH_OF_BUNDLE, found 2"),
        ({"prompt": b""}, "prompt: expected words, found an empty string; say what to draw, such as 'a red heart'"),
        ({"prompt": " \t\u2003\n".encode()}, "prompt: expected words, found an empty string;"),
        ({"prompt": None}, "prompt: expected a text, found NULL; pass the text to draw"),
        ({"prompt": b"ab\xff"}, "prompt: expected UTF-8, found byte 2 that is none; pass the text in UTF-8"),
        ({"prompt": b"ab\xed\xa0\x80"}, "prompt: expected UTF-8, found byte 2 that is none"),
        (
            {"prompt": "4 \u00d7 \u2028".encode()},
            "prompt: '4 \u00d7 \\u2028' has no token of this model's tokenizer; use words",
        ),
        ({"prompt": b"ab", "count": 2}, "prompts: expected 2 of them, found none; set prompts, or count to 1"),
        (
            {"contexts": (ctypes.c_float * 4)()},
            "bundle 'tiny-2' holds a text model: expected a prompt, found a context",
        ),
    ],
)
def test_input_that_cannot_be_used(tiny: Handle, changed: dict[str, Any], message: str) -> None:
    refused = failure(lambda: tiny.draw(tiny.params(**{"prompt": b"ab", **changed})))
    assert refused.status == Status.INPUT_ERROR
    assert refused.message.startswith(message)


def test_everything_is_checked_before_the_first_picture(tiny: Handle) -> None:
    called: list[int] = []
    params = tiny.params(
        count=2, prompts=texts(["ab", ""]), on_scale=every_scale(lambda each: called.append(each.scale))
    )
    assert failure(tiny.draw, params).status == Status.INPUT_ERROR
    assert called == []
    assert tiny.draw(tiny.params(count=0)) == []


def test_contexts_that_cannot_be_used(native: Any, build_once: BuildOnce) -> None:
    handle = Handle(native, build_once(GOLDEN / "plain", Precision.FP32))
    refused = failure(handle.generate, "a red heart")
    assert refused.status == Status.INPUT_ERROR
    assert "holds no text model: expected contexts (10, 56) and context_masks (10,), found a prompt;" in refused.message

    def draw(value: float, words: list[int]) -> NativeError:
        contexts, masks = (ctypes.c_float * 560)(*([0.5] * 559), value), (ctypes.c_uint8 * 10)(*words)
        return failure(handle.generate, contexts=contexts, context_masks=masks)

    finite = "context: expected finite tokens and at least one 1 in context_masks; check your text model"
    assert draw(float("nan"), [1] * 10).message == draw(float("inf"), [1] * 10).message == finite
    assert draw(0.5, [0] * 10).message == finite
    assert draw(0.5, [1, 2]).message == "context_masks: expected 0 and 1, found another number; pass 1 for words"
    handle.close()


def test_a_long_prompt_is_truncated_with_a_warning(native: Any, tiny: Handle) -> None:
    images = (POINTER(Image) * 1)()
    for prompt, tokens in ((b"abcdef", 6), (b"abcd", 4)):
        assert native.hart_edge_generate(tiny.pointer, tiny.params(prompt=prompt, seed=3), images) == Status.OK
        image = images[0].contents
        assert (image.prompt_tokens, image.seed, image.width, image.height) == (tokens, 3, 32, 32)
        native.hart_edge_image_free(images[0])
    assert tiny.generate("abcdef").tobytes() == tiny.generate("abcd").tobytes() != tiny.generate("abc").tobytes()


# Failures of bundles and engines.


def test_nan_in_the_weights_gives_no_picture(native: Any, folder: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        (codebook,) = (each for each in model.graph.initializer if each.name == "codebook")
        values = numpy_helper.to_array(codebook).copy()
        values[:, 0] = np.nan
        codebook.CopyFrom(numpy_helper.from_array(values, "codebook"))

    graph_edit(spoil, "graphs/tokens.onnx")(folder)
    handle = Handle(native, folder)
    for more in ({}, {"on_scale": every_scale(lambda progress: None), "previews": 1}):
        refused = failure(handle.generate, "ab", **more)
        assert refused.status == Status.GENERATION_ERROR
        assert refused.message.startswith("the decoder produced NaN or infinity, so there is no picture; try another")
    handle.close()


def _unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(onnx.helper.make_node("NoSuchOperator", [], ["nowhere"]))


def test_a_graph_that_the_engine_refuses(native: Any, folder: Path) -> None:
    """A graph that the first scale needs fails the opening; a later one the picture, or on request the opening."""
    graph_edit(_unknown_operator)(folder)
    handle = Handle(native, folder)
    for _ in range(2):
        refused = failure(handle.generate, "ab")
        assert refused.status == Status.ENGINE_ERROR
        assert refused.message.startswith("decoder: ONNX Runtime 1.") and "NoSuchOperator" in refused.message
        assert refused.message.endswith("; update ONNX Runtime or rebuild the bundle")
    handle.close()
    assert failure(Handle, native, folder, wait_for_all=1).message == refused.message
    graph_edit(_unknown_operator, "graphs/text_model.onnx")(folder)
    assert failure(Handle, native, folder).message.startswith("text_model: ONNX Runtime 1.")


def test_a_token_beyond_the_table_of_the_text_model(native: Any, folder: Path) -> None:
    definition = (folder / "tokenizer.json").read_text().replace('"z": 26', '"z": 99')
    (folder / "tokenizer.json").write_text(definition)
    from tests.bundle.corrupt_bundles import relist

    relist(folder, "tokenizer.json")
    handle = Handle(native, folder)
    refused = failure(handle.generate, "z")
    assert refused.status == Status.INPUT_ERROR
    assert refused.message == (
        "prompt: expected token ids below 32, which the text model knows, found 99; use other words, or rebuild the "
        "bundle with the text model's own tokenizer"
    )
    assert handle.generate("a").shape == (32, 32, 3)  # the handle still works for other prompts
    handle.close()


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"threads": -1}, Status.ENGINE_ERROR, "threads: expected an integer from 1 to 1024, or 0 for one"),
        ({"threads": 1025}, Status.ENGINE_ERROR, "threads: expected an integer from 1 to 1024"),
        ({"engine": 7}, Status.INVALID_ARGUMENT, "engine: expected HART_EDGE_ENGINE_AUTO, HART_EDGE"),
        ({"memory_limit": 1000}, Status.OUT_OF_MEMORY, "expected a memory_limit of at least "),
        ({"onnxruntime_library": b"/none.so"}, Status.ENGINE_ERROR, "expected ONNX Runtime's library /none.so, found"),
        ({"onnxruntime_library": b"libm.so.6"}, Status.ENGINE_ERROR, "libm.so.6: expected ONNX Runtime"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used(
    native: Any, pristine: Path, options: dict[str, Any], status: Status, message: str
) -> None:
    refused = failure(Handle, native, pristine, **options)
    assert refused.status == status
    assert refused.message.startswith(message)


def test_the_engine_is_found_by_option_or_environment(
    native: Any, pristine: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HART_EDGE_ONNXRUNTIME", "/elsewhere/libonnxruntime.so")
    assert "found none that loads (/elsewhere/libonnxruntime.so" in failure(Handle, native, pristine).message
    handle = Handle(native, pristine, onnxruntime_library=str(engine).encode())
    handle.close()


def test_a_bundle_for_another_target(native: Any, folder: Path) -> None:
    put("target", "name", value="tensorrt")(folder)
    refused = failure(Handle, native, folder, tensorrt_library=b"/none.so")  # more in test_tensorrt.py
    assert refused.status == Status.ENGINE_ERROR
    assert refused.message.startswith("expected TensorRT 10's library /none.so, found none that loads (/none.so: ")
    put("target", "name", value="cuda")(folder)
    refused = failure(Handle, native, folder)
    assert refused.message.startswith(
        "this bundle was built for cuda: expected CUDAExecutionProvider in ONNX Runtime 1."
    )


def test_a_tokenizer_that_is_not_supported(native: Any, folder: Path) -> None:
    from tests.bundle.make_bundle import make_bundle

    other = make_bundle(folder.parent / "words")
    assert failure(Handle, native, other).status == Status.BUNDLE_ERROR
