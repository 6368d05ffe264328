"""Malformed bundles: C gives the same verdicts on the lists of the Python tests, in the same words."""

from __future__ import annotations

import ctypes
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from hart_edge.bundle.manifest import parse
from hart_edge.bundle.onnx_guard import check_graph
from hart_edge.bundle.verify import open_bundle
from hart_edge.errors import BundleError
from tests.bundle import test_verify as test_bundle
from tests.bundle.corrupt_bundles import CORRUPTIONS, relist
from tests.bundle.corrupt_manifests import Corruption, manifest_edit
from tests.bundle.hub_cache import DEPTHS, WAYS_OUT, hub_cache
from tests.bundle.make_bundle import make_bundle
from tests.runtime.native.library import Handle, NativeError, Status

# Messages of C that differ from Python's. Its JSON reader is another one, and stops at some things that Python refuses
# later.
OTHER_WORDS = {
    "structure-integer_of_1000_digits": "expected JSON, found number overflow",
    "structure-path_surrogate": "expected JSON, found",
    "bytes-nan": "expected JSON, found",
    "bytes-infinity": "expected JSON, found",
    "bytes-overflow": "expected JSON, found number overflow",
    "bytes-empty": "top level: expected JSON, found",
    "bytes-trailing": "top level: expected JSON, found",
    "consistency-f_hat_differs": 'plan.buffers["f_hat.0"]: expected float32',
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("pristine") / "tiny")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "around" / "tiny"))


def ask(door: Any, *arguments: Any) -> str:
    """Call a test entry point: "" where it accepts, else the message of a bundle error."""
    message = ctypes.create_string_buffer(4096)
    status = door(*arguments, message)
    assert status in (Status.OK, Status.BUNDLE_ERROR), message.value
    return message.value.decode()


def test_a_whole_bundle_is_accepted(doors: Any, folder: Path) -> None:
    assert ask(doors.door_open_bundle, str(folder).encode()) == ""


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_spoilt_bundle_is_refused(doors: Any, folder: Path, name: str) -> None:
    corruption: Corruption = CORRUPTIONS[name]
    corruption.edit(folder)
    message = ask(doors.door_open_bundle, str(folder).encode())
    assert OTHER_WORDS.get(name, corruption.message) in message
    assert "expected" in message and "found" in message and ";" in message
    assert "\n" not in message and len(message) < 1200


def test_there_are_more_than_forty_corruptions(doors: Any) -> None:
    assert len(CORRUPTIONS) > 150 and OTHER_WORDS.keys() <= CORRUPTIONS.keys()


def test_most_refusals_are_word_for_word_those_of_python(doors: Any, pristine: Path, tmp_path: Path) -> None:
    same = 0
    for name, corruption in CORRUPTIONS.items():
        folder = Path(shutil.copytree(pristine, tmp_path / name / "tiny"))
        corruption.edit(folder)
        with pytest.raises(BundleError) as refusal:
            open_bundle(folder)
        same += ask(doors.door_open_bundle, str(folder).encode()) == str(refusal.value)
    assert same / len(CORRUPTIONS) > 0.9


# Hugging Face caches, links, and paths that are no bundle.


def test_links_inside_and_to_the_folder_are_followed(doors: Any, folder: Path) -> None:
    (folder / "graphs").rename(folder / "store")
    (folder / "graphs").symlink_to("store")
    (folder.parent / "link").symlink_to(folder)
    (folder / "secret").symlink_to("/etc/passwd")  # not listed
    assert ask(doors.door_open_bundle, str(folder.parent / "link").encode()) == ""


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_hub_cache_opens(doors: Any, pristine: Path, tmp_path: Path, depth: str) -> None:
    snapshot = hub_cache(pristine, tmp_path / "models--hart--tiny", depth)
    assert ask(doors.door_open_bundle, str(snapshot).encode()) == ""


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("edit", WAYS_OUT, ids=lambda edit: edit.__name__)
def test_links_of_a_hub_cache_that_lead_out_are_refused(
    doors: Any, pristine: Path, tmp_path: Path, depth: str, edit: Callable[[Path, Path], None]
) -> None:
    entry = tmp_path / "models--hart--tiny"
    snapshot = hub_cache(pristine, entry, depth)
    edit(entry, snapshot)
    message = ask(doors.door_open_bundle, str(snapshot).encode())
    assert "expected a file inside the bundle, found a link that leads out of it to" in message


def test_no_folder_and_no_bundle(doors: Any, folder: Path) -> None:
    absent = ask(doors.door_open_bundle, str(folder / "none").encode())
    assert "expected a bundle folder, found none (No such file or directory); build one with" in absent
    file = ask(doors.door_open_bundle, str(folder / "README.md").encode())
    assert "expected a bundle folder, found a file; build one with" in file


def test_a_bundle_without_constants_opens(doors: Any, folder: Path) -> None:
    manifest_edit(test_bundle._without_constants)(folder)
    (folder / "constants.bin").write_bytes(b"")
    relist(folder, "constants.bin")
    assert ask(doors.door_open_bundle, str(folder).encode()) == ""


# Tables whose entries are alike: two of each are tried.
TABLES = ("files", "constants", "buffers", "inputs", "outputs", "tools")

# Every key, every type, random damage: both readers accept the same.


def python_takes(data: bytes) -> bool:
    try:
        parse(data)
    except BundleError:
        return False
    return True


def test_both_readers_agree_on_every_type(doors: Any, pristine: Path) -> None:
    """Every value of the manifest replaced by one of each JSON type, and every key left out."""
    whole = json.loads((pristine / "manifest.json").read_bytes())
    tried = taken = 0

    def compare() -> None:
        nonlocal tried, taken
        data = json.dumps(whole).encode()
        accepted = ask(doors.door_parse, data, len(data)) == ""
        assert accepted == python_takes(data), data
        tried, taken = tried + 1, taken + accepted

    def visit(value: Any, alike: bool) -> None:
        places = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
        for key, kept in places[:2] if alike else places:
            if isinstance(value, dict):
                del value[key]
                compare()
            for other in (None, True, 1, -1, 0.5, "x", [], {}):
                value[key] = other
                compare()
            value[key] = kept
            if isinstance(kept, dict | list):
                visit(kept, isinstance(kept, list) or key in TABLES)

    visit(whole, False)
    assert tried > 1000 and taken > 10


@pytest.mark.parametrize(
    "data",
    [
        b'\xef\xbb\xbf{"format_version": 3}',
        b'{"format_version": 3}\0',
        b'{"format_version": 3} // comment',
        b'{"format_version": 03}',
        b'{"format_version": 3,}',
        b'{"format_version": +3}',
        b'{"format_version": 3.}',
        b"{'format_version': 2}",
        b'{"format_version": "\x01"}',
        b'{"format_version": "\\x"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\xc0\x80"}',
        b"nul",
        b"\x0c{}",
    ],
)
def test_malformed_json_gets_the_same_verdict(doors: Any, data: bytes) -> None:
    message = ask(doors.door_parse, data, len(data))
    assert not python_takes(data)
    assert message.startswith("manifest.json: top level: expected ") and "this key" not in message


def test_damaged_manifests_get_the_same_verdict(doors: Any, pristine: Path) -> None:
    source, dice, taken = (pristine / "manifest.json").read_bytes(), random.Random(11), 0
    for _ in range(1500):
        data = bytearray(source)
        for _ in range(dice.randint(1, 2)):
            data[dice.randrange(len(data))] = dice.choice(b'0129-+.eE"{}[],: aBx\\\x00\x7f\x80\xff')
        accepted = ask(doors.door_parse, bytes(data), len(data)) == ""
        assert accepted == python_takes(bytes(data)), bytes(data)
        taken += accepted
    assert taken > 20


def test_damaged_graphs_get_the_same_verdict(doors: Any, pristine: Path, tmp_path: Path) -> None:
    dice, taken, damaged = random.Random(7), 0, tmp_path / "damaged.onnx"
    for name in ("tokens", "text_model"):
        source = (pristine / "graphs" / f"{name}.onnx").read_bytes()
        for trial in range(400):
            data = bytearray(source)
            for _ in range(dice.randint(1, 4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            damaged.write_bytes(data if trial % 2 else data[: dice.randrange(len(data))])
            accepted = ask(doors.door_check_graph, str(damaged).encode(), b"text_model.onnx.data", 1024) == ""
            try:
                check_graph(damaged, allowed_external={"text_model.onnx.data": 1024})
            except BundleError:
                assert not accepted
            else:
                assert accepted
                taken += 1
    assert taken > 40


def test_the_onnx_guard_accepts_what_pythons_accepts(doors: Any, tmp_path: Path) -> None:
    """Numbers at the limits of external data: the sum of two numbers of 19 digits would overflow 64 bits."""
    for offset, length, size, good in [
        ("0", "64", 64, True),
        ("64", "0", 64, True),
        ("9" * 19, "9" * 19, 2**40, False),
        ("9" * 20, "1", 2**40, False),
        ("1", "64", 64, False),
        ("-1", "64", 64, False),
        ("", "64", 64, False),
        ("0x1", "4", 64, False),
    ]:
        tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[16])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "w.bin"), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=value)
        path = tmp_path / "model.onnx"
        graph = onnx.helper.make_graph([], "g", [], [], [tensor])
        path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
        assert (ask(doors.door_check_graph, str(path).encode(), b"w.bin", size) == "") == good
        try:
            check_graph(path, allowed_external={"w.bin": size})
        except BundleError:
            assert not good
        else:
            assert good


def test_a_refusal_reaches_the_caller(native: Any, folder: Path) -> None:
    """The message gets from the reader to hart_edge_last_error."""
    CORRUPTIONS["files-file_altered"].edit(folder)
    with pytest.raises(
        NativeError, match=r"README\.md: expected sha256 4cc72c0b90fc\.\.\., found .*: the file was"
    ) as caught:
        Handle(native, folder)
    assert caught.value.status == Status.BUNDLE_ERROR
