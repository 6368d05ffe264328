"""Bundles that many tests share: built once per run, each graph traced once, whichever process needs it first."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from hart_edge.bundle.manifest import Precision
from hart_edge.calib.scheme import Int8Scheme
from hart_edge.cli.build import run as run_build
from hart_edge.cli.main import build_parser, guarded, main, parser
from hart_edge.export.chain import build
from hart_edge.export.graph_module import GraphModule
from hart_edge.export.onnx_export import export_graph
from hart_edge.export.options import BuildOptions
from hart_edge.export.tools import Tools
from hart_edge.reference.presets import SHIPPED_MODEL
from tests.cli.command_line import Run

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
FOLDERS = ("hart_edge", "export", "engines", "runtime", "calib")  # the wheel is built from them
NOT_OURS = (  # in the checkout, but in no clone
    ".git", ".venv", "bundles", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", "demo.png",
    "demo-sheet.png", "gpu-check.json",
)  # fmt: skip
FLAVOURS = ("adaln", "shared-adaln", "plain")

BuildOnce = Callable[[Path, Precision], Path]
BuildCommand = Callable[..., int]  # arguments, tools -> exit status

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background jobs of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))

# Fixtures that build something: tests that ask for one are marked `long`, which `make quick` leaves out.
BUILDERS = frozenset({"build_once", "tools", "built", "wheel", "source_distribution"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if BUILDERS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def tools(shared: Path) -> Tools:
    """Tools that trace a graph once per run: the same graph with the same weights again gives a copy of the first."""
    folder = shared / "traced"
    folder.mkdir(exist_ok=True)

    def trace_once(graph: GraphModule, path: Path) -> None:
        digest = hashlib.sha256(repr((graph.name, graph.inputs, graph.outputs, graph.fused)).encode())
        for name, tensor in graph.state_dict().items():
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        first = folder / digest.hexdigest()
        with FileLock(f"{first}.lock"):
            if not first.is_dir():
                unfinished = Path(tempfile.mkdtemp(dir=folder))
                export_graph(graph, unfinished / path.name)
                unfinished.rename(first)
        shutil.copytree(first, path.parent, dirs_exist_ok=True)

    return Tools(trace=trace_once)


@pytest.fixture(scope="session")
def build_once(tools: Tools, shared: Path) -> BuildOnce:
    """Build a checkpoint at a precision for the CPU, once per run. Tests must not change the folder."""
    root = shared / "bundles"
    root.mkdir(exist_ok=True)

    def build_bundle(checkpoint: Path, precision: Precision) -> Path:
        out = root / f"{checkpoint.name}-{precision}"
        with FileLock(f"{out}.lock"):
            if not out.is_dir():
                # the static scheme: the fastest one differs between machines
                options = BuildOptions(checkpoint, out, precision, int8_scheme=Int8Scheme.STATIC)
                build(options, tools=tools)
        return out

    return build_bundle


@pytest.fixture
def build_command(tools: Tools) -> BuildCommand:
    """`python -m export.build` in this process, tracing every graph once per run."""

    def call(arguments: Sequence[str], tools: Tools = tools) -> int:
        a = build_parser().parse_args(arguments)
        a.typed = ["python", "-m", "export.build", *arguments]
        return guarded(functools.partial(run_build, build=functools.partial(build, tools=tools)), a)

    return call


@pytest.fixture(scope="session")
def int8_bundle(build_once: BuildOnce) -> Path:
    """The shipped model at int8."""
    return build_once(SHIPPED_MODEL, Precision.INT8)


@pytest.fixture(scope="session")
def fp16_bundle(build_once: BuildOnce) -> Path:
    """The shipped model at fp16."""
    return build_once(SHIPPED_MODEL, Precision.FP16)


@pytest.fixture(scope="session")
def fp32_bundle(build_once: BuildOnce) -> Path:
    """The shipped model at fp32."""
    return build_once(SHIPPED_MODEL, Precision.FP32)


@pytest.fixture(scope="session", params=FLAVOURS)
def golden_bundle(request: pytest.FixtureRequest, build_once: BuildOnce) -> Path:
    """Each golden checkpoint at fp32; it takes a context array."""
    return build_once(GOLDEN / request.param, Precision.FP32)


@pytest.fixture(scope="session")
def plain_bundle(build_once: BuildOnce) -> Path:
    """A bundle that takes a context array."""
    return build_once(GOLDEN / "plain", Precision.FP32)


@pytest.fixture(scope="session")
def source_distribution(shared: Path) -> Path:
    """The source distribution, built once per run from a copy of the tree, so that no earlier build leaks into it."""
    folder = shared / "sdist"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            source = shared / "source"
            shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(*NOT_OURS))
            package("--sdist", "--outdir", folder, source, cwd=shared)
    (built,) = folder.glob("*.tar.gz")
    return built


@pytest.fixture(scope="session")
def unpacked(source_distribution: Path, shared: Path) -> Path:
    """The unpacked source distribution. Whatever is built from it finds all that it needs there."""
    folder = shared / "unpacked"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            with tarfile.open(source_distribution) as archive:
                archive.extractall(folder, filter="data")
    (inside,) = folder.iterdir()
    return inside


@pytest.fixture(scope="session")
def wheel(unpacked: Path, shared: Path) -> Path:
    """The wheel of a workstation, built once per run."""
    folder = shared / "wheel"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            package("--wheel", "--outdir", folder, unpacked, cwd=shared)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def device_wheel(unpacked: Path, int8_bundle: Path, shared: Path) -> Path:
    """The wheel of a device, which has the INT8 bundle instead of the checkpoint, as `make wheel` builds it."""
    folder = shared / "device-wheel"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            package("--wheel", "--outdir", folder, unpacked, cwd=shared, HART_EDGE_BUNDLE=str(int8_bundle))
    (built,) = folder.glob("*.whl")
    return built


def package(*arguments: object, cwd: Path, **environment: str) -> None:
    """Run `python -m build`; it must succeed."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HART_EDGE_BUNDLE")}
    command = [sys.executable, "-m", "build", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=clean | environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line in an empty folder: (exit status, standard output, standard error).

    by: a run() to call instead of the command's own, for tests that pass other parts to it.
    """
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, by: Callable[[Namespace], int] | None = None) -> tuple[int, str, str]:
        capsys.readouterr()
        words = [str(each) for each in arguments]
        try:
            if by is None:
                status = main(words)
            else:
                a = parser().parse_args(words)
                a.typed = ["hart-edge", *words]
                status = guarded(by, a)
        except SystemExit as ended:  # how argparse ends on wrong arguments
            assert isinstance(ended.code, int)
            status = ended.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return call
