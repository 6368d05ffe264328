"""Batches, eval and a server on a local Ray cluster: two minutes; pytest -m slow tests/batch/test_on_ray.py

Needs pip install 'hart-edge[ray]' and ray[serve].
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hart_edge.cli.main import main
from tests.runtime.words_bundle import make_words_bundle

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PROMPTS = "".join(f"w{1 + number % 30} w{2 + number % 29}\n" for number in range(30))


@pytest.fixture(scope="module", autouse=True)
def needed() -> None:
    pytest.importorskip("ray", reason="needs pip install 'hart-edge[ray]'")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words_bundle(tmp_path_factory.mktemp("words") / "tiny")


def command(words: Path, out: Path, *more: object) -> list[str]:
    prompts = out.parent / "prompts.txt"
    prompts.write_text(PROMPTS)
    return [
        sys.executable,
        "-m",
        "hart_edge",
        "batch",
        str(prompts),
        "--out",
        str(out),
        "--bundle",
        str(words),
        *map(str, more),
    ]


def process(words: list[str], **more: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_bytes_whatever_the_number_of_workers(words: Path, tmp_path: Path) -> None:
    drawn = {}
    for name, more in {"here": (), "one": (1,), "three": (3,)}.items():
        options = ("--address", "local", "--workers", *more) if more else ()
        done = process(command(words, tmp_path / name, *options))
        assert done.returncode == 0, done.stdout + done.stderr
        drawn[name] = files(tmp_path / name)
    assert len(drawn["here"]) == 31 and drawn["one"] == drawn["here"] and drawn["three"] == drawn["here"]


def test_a_batch_on_ray_that_was_killed_goes_on(words: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    started = command(words, out, "--address", "local", "--workers", 2)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        started, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as it:
        end = time.monotonic() + 300
        while len(list(out.glob("*.png"))) < 4:
            assert time.monotonic() < end and it.poll() is None
            time.sleep(0.005)
        it.kill()
    there = len(list(out.glob("*.png")))
    assert (there >= 4 and not (out / "metadata.jsonl").exists()) or there == 30
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert process(started).returncode == 0
    assert {name: (out / name).stat().st_mtime_ns for name in stamps} == stamps  # none was drawn twice
    whole = process(command(words, tmp_path / "whole"))
    assert whole.returncode == 0 and files(out) == files(tmp_path / "whole")


def test_no_cluster_is_told(words: Path, tmp_path: Path) -> None:
    done = process(command(words, tmp_path / "out", "--address", "127.0.0.1:1"))
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(
        "error: --address 127.0.0.1:1: no Ray cluster"
    )


def test_the_document_of_ray_serve_runs(words: Path, tmp_path: Path) -> None:
    """The program of docs/batch.md, with this bundle."""
    pytest.importorskip("ray.serve", reason="needs pip install 'ray[serve]'")
    page = (ROOT / "docs" / "batch.md").read_text()
    program = page.split("<!-- deployment.py -->\n```python\n")[1].split("```")[0]
    (tmp_path / "deployment.py").write_text(program)
    (tmp_path / "call.py").write_text(
        "import json, sys, urllib.request\n"
        "from ray import serve\n"
        "from deployment import app\n"
        "serve.run(app)\n"
        "ask = urllib.request.Request('http://127.0.0.1:8000/v1/images/generations',\n"
        "    json.dumps({'prompt': 'w1', 'seed': 5}).encode(), {'content-type': 'application/json'})\n"
        "answer = json.load(urllib.request.urlopen(ask, timeout=120))['data'][0]['b64_json']\n"
        "open('answer', 'w').write(answer)\n"
        "serve.shutdown()\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "HART_EDGE_BUNDLE": str(words)}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "call.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    (tmp_path / "one.png").write_bytes(base64.b64decode((tmp_path / "answer").read_text()))
    assert (
        main(
            [
                "generate",
                "--like",
                str(tmp_path / "one.png"),
                "--bundle",
                str(words),
                "--out",
                str(tmp_path / "two.png"),
            ]
        )
        == 0
    )
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
