"""A bundle that changes while C has it open: open files keep working, files opened later must be the verified ones."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.bundle.test_limits import V2, write
from tests.runtime.native.letters_bundle import make_letters_bundle
from tests.runtime.native.library import Handle, NativeError, Status


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_letters_bundle(tmp_path / "tiny")


def test_an_open_bundle_outlives_its_folder(native: Any, folder: Path) -> None:
    handle = Handle(native, folder, wait_for_all=1)
    expected = handle.generate("ab").tobytes()
    shutil.rmtree(folder)
    assert handle.generate("ab").tobytes() == expected
    handle.close()


def test_a_file_that_is_written_in_place_is_reported(native: Any, folder: Path) -> None:
    handle = Handle(native, folder, wait_for_all=1)
    handle.generate("ab")
    data = (folder / "constants.bin").read_bytes()
    (folder / "constants.bin").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(folder / "constants.bin", (1, 1))
    with pytest.raises(
        NativeError, match=r"^constants\.bin: expected the file that .* found it written over"
    ) as refused:
        handle.generate("ab")
    assert refused.value.status == Status.BUNDLE_ERROR
    handle.close()


@pytest.mark.parametrize("how", ["in place", "rename", "removed", "the same again"])
def test_a_file_that_is_opened_later(doors: Any, folder: Path, how: str) -> None:
    name = "graphs/decoder.onnx"
    message = ctypes.create_string_buffer(4096)
    doors.door_open_later.restype = ctypes.c_void_p
    bundle = ctypes.c_void_p(doors.door_open_later(str(folder).encode()))
    assert doors.door_opened(bundle, name.encode(), message) == Status.OK, message.value
    data = (folder / name).read_bytes()
    if how == "in place":
        (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif how == "rename":
        (folder / "new").write_bytes(data + b"\x01")
        (folder / "new").rename(folder / name)
    elif how == "removed":
        shutil.rmtree(folder)
    else:
        (folder / "new").write_bytes(data)
        (folder / "new").rename(folder / name)
    status = doors.door_opened(bundle, name.encode(), message)
    doors.door_close_later(bundle)
    if how == "the same again":
        assert status == Status.OK
    else:
        assert status == Status.BUNDLE_ERROR
        found = b"none (No such file or directory)" if how == "removed" else b"another"
        assert b"expected the file that was verified, found " + found in message.value


def test_available_memory_is_the_limit_of_a_group(doors: Any, tmp_path: Path) -> None:
    available = doors.door_available_memory
    available.restype, available.argtypes = ctypes.c_int64, (ctypes.c_char_p,)
    assert available(str(tmp_path / "none").encode()) == -1
    mb = 2**20
    write(tmp_path, {"proc/meminfo": "MemTotal: 65536 kB\nMemAvailable: 32768 kB"})
    assert available(str(tmp_path).encode()) == 32 * mb
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/box",
            "proc/self/mountinfo": V2,
            "sys/fs/cgroup/pod/box/memory.max": "max",
            "sys/fs/cgroup/pod/memory.max": 16 * mb,
            "sys/fs/cgroup/pod/memory.current": 12 * mb,
            "sys/fs/cgroup/pod/memory.stat": f"anon 5\ninactive_file {2 * mb}",
        },
    )
    assert available(str(tmp_path).encode()) == 6 * mb
    write(
        tmp_path,
        {
            "proc/self/cgroup": "5:devices:/docker/1\n4:cpu,memory:/docker/1\n0::/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 8 * mb,  # a container sees its own group mounted
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 5 * mb,
        },
    )
    assert available(str(tmp_path).encode()) == 3 * mb


@pytest.mark.parametrize(
    ("message", "memory"),
    [
        ("Exception during initialization: std::bad_alloc", 1),
        ("Failed to allocate memory for requested buffer of size 12", 1),
        ("mmap failed: Cannot allocate memory", 1),
        ("CUDA failure 2: out of memory", 1),
        ("Got invalid dimensions for input: input_ids", 0),
        ("No Op registered for NoSuchOperator", 0),
    ],
)
def test_out_of_memory_messages_of_engines(doors: Any, message: str, memory: int) -> None:
    from hart_edge.engines.onnxruntime.session import is_out_of_memory

    assert doors.door_is_out_of_memory(message.encode()) == memory == is_out_of_memory(RuntimeError(message))
