"""The examples of docs/server.md: every one is run against the tiny bundle, and every route has one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hart_edge.server.app import OPERATIONS
from tests.server.running import ROOT, Server

pytestmark = pytest.mark.long

PAGE = (ROOT / "docs" / "server.md").read_text("utf-8")
SLOW = "w10 w1"  # takes long enough to be cancelled
SHELL = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def here(text: str, server: Server) -> str:
    """An example with the address, the bundle and the words of this server."""
    text = text.replace("http://127.0.0.1:8000", server.address).replace("hart-emoji-int8", "tiny-2")
    return text.replace("a red heart", "w1 w2").replace("sunflower", SLOW)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.split()[2].rpartition("/")[2][:20])
def test_every_command_answers(server: Server, block: str, tmp_path: Path) -> None:
    failing = re.sub(r"curl -s(N?)", r"curl -sS\1 --fail-with-body", here(block, server))  # an error is an exit status
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", failing], cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, (block, done.stdout[-500:], done.stderr)
    assert done.stdout
    if "-X DELETE" in block:
        assert json.loads(done.stdout)["state"] == "cancelled"


@pytest.mark.parametrize("block", PYTHON)
def test_every_program_runs(server: Server, block: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(here(block, server), "docs/server.md", "exec"), {})
    assert capsys.readouterr().out.count("image_generation.") == 2


def test_every_route_has_an_example() -> None:
    asked = set()
    for block in SHELL:
        for command in re.findall(r"curl .*?(?=\n(?!  )|\Z)", block, re.DOTALL):
            path = re.search(r"http://127\.0\.0\.1:8000(/[^\s'?]*)", command)
            assert path is not None, command
            method = "DELETE" if "-X DELETE" in command else "POST" if " -d " in command else "GET"
            asked.add((method, path[1].replace("$JOB", "{id}").replace("hart-emoji-int8", "{name}")))
    assert asked == {(each.method, each.path) for each in OPERATIONS}
