"""`hart-edge import`: folders, a stand-in of the hub on the loopback address, and its cache without network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.presets import SHIPPED_MODEL
from hart_edge.reference.text_model import load_text_model
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer
from tests.cli.command_line import Run
from tests.conftest import ROOT

REVISION = "5" * 40
REPOSITORIES = {"me/hart": SHIPPED_MODEL, "me/text": SHIPPED_MODEL / "text_model"}


@pytest.fixture
def constants(tmp_path: Path) -> Path:
    path = tmp_path / "constants.py"
    path.write_text("raise SystemExit('executed')\nllm_system_prompt = 'draw a small picture of\\n'\n")
    return path


def checked(out: Path, instruction: str) -> dict:
    """The record of an import, whose files are as it says and whose parts can be read."""
    record = json.loads((out / "import.json").read_text())
    for name, entry in record["files"].items():
        data = (out / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    load_checkpoint(out)
    model, _ = load_text_model(out / "text_model", 24, PromptTokenizer.padding_with)
    assert model.instruction_text == instruction
    return record


@pytest.mark.parametrize("copy", [False, True])
def test_folders(run: Run, tmp_path: Path, constants: Path, copy: bool) -> None:
    out, folder = tmp_path / "imported", SHIPPED_MODEL
    arguments = ["import", "--hart", folder, "--text-model", folder / "text_model", "--instruction", constants]
    status, said, wrong = run(*arguments, "--out", out, *(["--copy"] if copy else []))
    assert (status, wrong) == (0, "")
    assert f"hart-edge build --checkpoint {out} --precision int8\n" in said
    record = checked(out, "draw a small picture of\n")
    assert record["hart"] == {"source": str(folder), "revision": None}
    assert record["instruction"] == {"source": str(constants)}
    assert (out / "llm" / "ema_model.safetensors").is_symlink() is not copy
    assert {"sampling.json", "licences.json"} < record["files"].keys()
    assert run(*arguments, "--out", out)[0] == 0  # an earlier import is replaced


def test_no_instruction(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "imported"
    folder = SHIPPED_MODEL
    arguments = ["--hart", folder, "--text-model", folder / "text_model", "--instruction", "none", "--out", out]
    status, said, _ = run("import", *arguments, "--json")
    assert status == 0
    assert json.loads(said)["build"].endswith("--no-instruction")
    assert checked(out, "")["instruction"] is None


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (
            ("--hart", SHIPPED_MODEL / "llm"),
            "expected llm/ and tokenizer/, found config.json, ema_model.safeten",
        ),
        (("--hart", "no/such/folder"), "OWNER/NAME of a repository on a model hub, found no such folder; name the f"),
        (("--text-model", SHIPPED_MODEL / "tokenizer"), "expected this file of the text model, found none"),
        (("--instruction", SHIPPED_MODEL / "llm" / "none.txt"), "expected the instruction's text, found none"),
    ],
)
def test_what_is_refused(run: Run, tmp_path: Path, change: tuple[str, Path], phrase: str) -> None:
    folder = SHIPPED_MODEL
    given = {"--hart": folder, "--text-model": folder / "text_model", "--instruction": "none"} | dict([change])
    status, _, wrong = run("import", *(word for pair in given.items() for word in pair), "--out", tmp_path / "out")
    assert status == 1
    assert phrase in wrong and wrong.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_other_folders_are_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    folder = SHIPPED_MODEL
    arguments = ["--hart", folder, "--text-model", folder / "text_model", "--instruction", "none"]
    status, _, wrong = run("import", *arguments, "--out", tmp_path / "mine")
    assert status == 1 and "found something else; name another --out" in wrong
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of the hub for two repositories, in the little that it needs."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        path = self.path.split("?")[0]
        for name, folder in REPOSITORIES.items():
            files = {f.relative_to(folder).as_posix(): f for f in sorted(folder.rglob("*")) if f.is_file()}
            if path.startswith(f"/api/models/{name}/tree/"):
                tree = [{"type": "file", "path": p, "size": f.stat().st_size, "oid": etag(f)} for p, f in files.items()]
                return self.send(json.dumps(tree).encode(), "application/json", body=body)
            if path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
                info = {"id": name, "sha": REVISION, "siblings": [{"rfilename": each} for each in files]}
                return self.send(json.dumps(info).encode(), "application/json", body=body)
            start = f"/{name}/resolve/{REVISION}/"
            if path.startswith(start) and path.removeprefix(start) in files:
                file = files[path.removeprefix(start)]
                headers = {"ETag": f'"{etag(file)}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
                return self.send(file.read_bytes(), "application/octet-stream", headers, body=body)
        self.send_error(404)

    def send(self, data: bytes, kind: str, headers: dict[str, str] | None = None, *, body: bool) -> None:
        self.send_response(200)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_repositories_of_a_hub_and_its_cache_without_network(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = {**clean, "HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_XET": "1"}
    there = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}"}
    (tmp_path / "instruction.txt").write_text("draw")

    def call(out: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hart_edge", "import", "--hart", "me/hart", "--text-model", "me/text"]
        command += ["--instruction", "instruction.txt", "--out", out]
        given = environment | more
        return subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=120)

    offline = call("none", HF_HUB_OFFLINE="1", **there)
    assert offline.returncode == 1
    (line,) = offline.stderr.splitlines()
    assert line.startswith("error: --hart me/hart: expected to download llm/ and tokenizer/, found no way to (")
    assert "download these files of the repository me/hart: llm/config.json, llm/ema_model.*" in line
    assert hub.asked == []  # type: ignore[attr-defined]
    done = call("one", **there)
    assert done.returncode == 0, done.stderr
    record = checked(tmp_path / "one", "draw")
    assert record["hart"] == {"source": "me/hart", "revision": REVISION}
    assert record["text_model"] == {"source": "me/text", "revision": REVISION}
    assert not any("text_model/model.safetensors" in each for each in hub.asked)  # type: ignore[attr-defined]
    assert call("two", HF_HUB_OFFLINE="1", **there).returncode == 0
    assert checked(tmp_path / "two", "draw") == record
    shutil.rmtree(tmp_path / "cache")
