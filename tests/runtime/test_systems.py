"""Drawing from Python needs nothing that only Linux with glibc has: /proc, /sys, glibc's calls, fcntl and forks.

A process from which they are hidden, on another platform by name, draws the bytes that are drawn here. It is no such
system: engine library, numpy and Pillow are those of this one.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hart_edge.engines.loading import load
from tests.cli.command_line import ROOT, pixels
from tests.runtime.words_bundle import make_words_bundle

# Behind the imports of other packages: what is hidden is hidden from ours.
HIDE = """
import ctypes, os, platform, signal, sys
import numpy, onnxruntime, PIL.Image, PIL.PngImagePlugin, tokenizers
system, name = {"musl": ("Linux", "linux"), "macos": ("Darwin", "darwin"), "windows": ("Windows", "win32")}[sys.argv[1]]
hidden = []

def hook(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(("/proc", "/sys")):
        hidden.append(str(arguments[0]))
        raise FileNotFoundError(2, "No such file or directory", arguments[0])
    if event == "ctypes.dlopen" and arguments[0] is None:
        hidden.append("ctypes.CDLL(None)")
        raise TypeError("expected a name") if system == "Windows" else OSError("no such library")

sys.addaudithook(hook)
platform.system, sys.platform = (lambda: system), name
platform.libc_ver = lambda *a, **k: ("", "")
if system != "Linux":
    sys.modules["fcntl"] = sys.modules["resource"] = None
    for attribute in ("sched_getaffinity",) + (
        ("fork", "register_at_fork", "geteuid", "getuid", "pathconf") if system == "Windows" else ()
    ):
        if hasattr(os, attribute):
            delattr(os, attribute)
    if system == "Windows":
        del signal.SIGHUP
"""
DRAW = """
import hashlib, json, hart_edge
from hart_edge.cli.main import main
with hart_edge.load(sys.argv[2]) as pipe:
    digests = [hashlib.sha256(pipe.generate("w1", seed=seed).tobytes()).hexdigest() for seed in range(2)]
    digests += [hashlib.sha256(event.preview().tobytes()).hexdigest() for event in pipe.stream("w2 w3")]
status = main(["generate", "w1", "--seed", "1", "--bundle", sys.argv[2], "--out", "drawn.png"])
status |= main(["info", sys.argv[2]]) | main(["plan", sys.argv[2], "--memory", "1GiB"])
print(json.dumps({"digests": digests, "status": status, "hidden": hidden}))
"""


@pytest.mark.parametrize("system", ["musl", "macos", "windows"])
def test_it_draws_the_same_where_these_are_hidden(system: str, tmp_path: Path) -> None:
    folder = make_words_bundle(tmp_path / "words")
    command = [sys.executable, "-c", HIDE + DRAW, system, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    pipe = load(folder)
    drawn = [pipe.generate("w1", seed=seed) for seed in range(2)]
    expected = [*drawn, *(event.preview() for event in pipe.stream("w2 w3"))]
    assert found["digests"] == [hashlib.sha256(image.tobytes()).hexdigest() for image in expected]
    assert found["status"] == 0 and pixels(tmp_path / "drawn.png") == drawn[1].tobytes()
    assert "ctypes.CDLL(None)" in found["hidden"]  # it was asked for, and done without
