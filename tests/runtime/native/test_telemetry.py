"""Drawing a picture contacts no machine, although ONNX Runtime's official builds would (1.29 and later)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.native.conftest import ROOT, Build, run
from tests.runtime.native.letters_bundle import make_letters_bundle

SECONDS = 12  # ONNX Runtime connects after two to four
PYTHON = """
import sys, time
from hart_edge.engines.loading import load
load(sys.argv[1]).generate("ab", seed=7)
"""
C = """
import sys, time
from tests.runtime.native.library import Handle, load
handle = Handle(load(sys.argv[2]), sys.argv[1])
handle.generate("ab", seed=7)
"""

# How a build opens graphs to count what they take.
COUNTING = """
import sys
from hart_edge.bundle.verify import open_bundle
from hart_edge.export.costs import count_costs
bundle = open_bundle(sys.argv[1])
count_costs(bundle.manifest, bundle.folder)
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [PYTHON, C], ids=["python", "c"])
def test_no_connection_is_attempted(built: Build, engine: Path, tmp_path: Path, program: str) -> None:
    watch = tmp_path / "watch.so"
    run("cc", "-shared", "-fPIC", Path(__file__).with_name("name_lookups.c"), "-o", watch)
    bundle = make_letters_bundle(tmp_path / "letters")
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    environment |= {"LD_PRELOAD": str(watch), "HART_EDGE_ONNXRUNTIME": str(engine)}

    def lookups(source: str, *arguments: Path) -> list[str]:
        command = [sys.executable, "-c", f"{source}\ntime.sleep({SECONDS})", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stderr.splitlines()

    assert lookups(program, bundle, built.library) == []
    # The same library in a program without hart-edge is seen to connect, so the check works.
    plain = "import onnxruntime, sys, time\nonnxruntime.InferenceSession(sys.argv[1])"
    assert any("lookup of" in line for line in lookups(plain, bundle / "graphs" / "decoder.onnx"))


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
@pytest.mark.parametrize("program", [PYTHON, C, COUNTING], ids=["python", "c", "counting"])
def test_a_telemetry_setting_of_the_user_is_kept(
    built: Build, engine: Path, tmp_path: Path, program: str, given: str | None, expected: str
) -> None:
    bundle = make_letters_bundle(tmp_path / "letters")
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment["HART_EDGE_ONNXRUNTIME"] = str(engine)
    if given is not None:
        environment["ORT_DISABLE_TELEMETRY"] = given
    told = "import ctypes\nget = ctypes.CDLL(None).getenv\nget.restype = ctypes.c_char_p\n"
    source = f"{program}{told}print(get(b'ORT_DISABLE_TELEMETRY').decode())"
    command = [sys.executable, "-c", source, str(bundle), str(built.library)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, f"{expected}\n"), done.stderr
