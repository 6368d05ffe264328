"""The container and the service: linted, and their commands run without docker and systemd.

Minutes, since the package is installed: python -m pytest -m slow tests/server/test_container.py
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.running import ROOT, Server, started

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
KEY = "0123456789abcdef"
# A process of nobody that can write to /tmp alone, as the container's.
READ_ONLY = "mount --bind / / && mount -o remount,ro,bind / && mount -t tmpfs tmpfs /tmp && cd / && "
NOBODY = "exec setpriv --reuid 65534 --regid 65534 --clear-groups "


def instruction(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def test_the_dockerfile_says_what_it_should() -> None:
    assert instruction("USER") == ["65534:65534"] and instruction("STOPSIGNAL") == ["SIGTERM"]
    assert all("slim" in image for image in instruction("FROM")) and len(instruction("FROM")) == 2
    assert json.loads(instruction("ENTRYPOINT")[0])[:2] == ["hart-edge", "serve"]
    assert "/healthz" in instruction("HEALTHCHECK")[0]


def test_the_linters_find_nothing() -> None:
    found = 0
    for command in (["hadolint", "Dockerfile"], ["systemd-analyze", "verify", "UNIT"]):
        program = shutil.which(command[0], path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if program is None:
            continue
        unit = (ROOT / "deploy" / "hart-edge.service").read_text()
        copy = Path(os.environ.get("TMPDIR", "/tmp")) / f"hart-edge-{os.getpid()}.service"
        copy.write_text(unit.replace("/opt/hart-edge/bin/hart-edge", sys.executable))  # it looks for the program
        try:
            words = [program, *(str(copy) if word == "UNIT" else word for word in command[1:])]
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
        finally:
            copy.unlink()
        assert done.returncode == 0 and done.stdout + done.stderr == "", (command, done.stdout, done.stderr)
        found += 1
    if not found:
        pytest.skip("needs hadolint (pip install 'hart-edge[server-tests]') or systemd-analyze")


def public_python() -> str:
    """An interpreter that every user may run, as the image's: not one in somebody's home.

    It starts itself once more, since setpriv's own program is still found with the rights of root.
    """
    again = "import subprocess, sys; subprocess.check_call([sys.executable, '-c', 'import ensurepip'])"
    for program in (sys.executable, "/usr/bin/python3.13", "/usr/bin/python3.12", "/usr/bin/python3.11"):
        tried = subprocess.run(["sh", "-c", f'{NOBODY} {program} -c "{again}"'], capture_output=True)
        if tried.returncode == 0:
            return program
    return sys.executable


@pytest.fixture(scope="module")
def image(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the image holds: the environment of its RUN, and the bundle."""
    root = tmp_path_factory.mktemp("image", numbered=True)
    opt = Path("/opt") if os.access("/opt", os.W_OK) else root
    folder = opt / f"hart-edge-test-{os.getpid()}"
    (source := root / "src").mkdir()
    for name in ("hart_edge", "export", "engines", "runtime", "calib", "pyproject.toml", "LICENSE", "README.md"):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "models"))
        else:
            shutil.copy(path, source)
    shutil.copytree(words, folder / "bundle")
    (folder / "key").write_text(KEY)
    command = instruction("RUN")[0].replace("/opt/hart-edge", str(folder / "venv"))
    command = command.replace("python -m", f"{public_python()} -m", 1)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(["sh", "-c", command], cwd=source, env=clean, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert instruction("COPY --chown=65534:65534") == ["${BUNDLE} /bundle"]
    for path in (folder / "bundle", *(folder / "bundle").rglob("*"), folder / "key"):
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
    yield folder
    shutil.rmtree(folder)


def entry(image: Path) -> str:
    words = [*json.loads(instruction("ENTRYPOINT")[0]), *json.loads(instruction("CMD")[0])]
    places = {"hart-edge": str(image / "venv/bin/hart-edge"), "/bundle": str(image / "bundle")}
    places["/run/secrets/key"] = str(image / "key")
    return shlex.join([*(places.get(word, word) for word in words), "--port", "0"])


@pytest.mark.slow
def test_the_containers_commands_run_as_nobody_on_a_read_only_file_system(image: Path, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-m", "sh", "-c", f"{READ_ONLY} {NOBODY} true"], capture_output=True).returncode:
        pytest.skip("needs root with CAP_SYS_ADMIN, to mount")
    command = ["unshare", "-m", "sh", "-c", READ_ONLY + NOBODY + entry(image)]
    environment = {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    with started(command, tmp_path / "log", environment) as server:
        (pid,) = [server.process.pid]
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^Uid:\t65534\t65534", status, re.MULTILINE)
        assert server.get("/v1/models").status == 401
        drawn = server.post("/v1/images/generations", {"prompt": "w1"}, authorization=f"Bearer {KEY}")
        assert drawn.status == 200 and len(drawn.json()["data"]) == 1
        assert healthy(image, server) == 0
        assert server.end() == 0
        assert healthy(image, server) != 0


def healthy(image: Path, server: Server) -> int:
    """The exit status of the health check."""
    words = json.loads(instruction("HEALTHCHECK")[0].partition("CMD ")[2])
    command = [str(image / "venv/bin/python"), *words[1:]]
    command[-1] = command[-1].replace(":8000", f":{server.port}")
    return subprocess.run(command, capture_output=True, timeout=60).returncode


@pytest.mark.slow
def test_the_services_command_runs(image: Path, tmp_path: Path) -> None:
    unit = (ROOT / "deploy" / "hart-edge.service").read_text()
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    command = line.replace("/opt/hart-edge", str(image / "venv")).replace("/srv/hart-edge", str(image / "bundle"))
    command = command.replace("--port 8000", "--port 0")
    with started(shlex.split(command), tmp_path / "log", {"PYTHONPATH": ""}) as server:
        assert server.post("/v1/images/generations", {"prompt": "w1"}).status == 200
        assert server.end() == 0  # as systemd ends it: SIGTERM to the server alone (KillMode=mixed)
