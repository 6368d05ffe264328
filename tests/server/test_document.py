"""The OpenAPI document by a tool that calls every route as it says: two minutes; pytest -m slow tests/server/test_document.py"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.running import ROOT, Server


@pytest.mark.slow
def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    """Answers that the document does not tell, other media types, statuses of 500, and bodies that should be refused."""
    pytest.importorskip("schemathesis", reason="needs pip install 'hart-edge[server-tests]'")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.address}/openapi.json", "--checks", checks]
    command += ["--max-examples", "60", "--seed", "1", "--request-timeout", "20", "--suppress-health-check", "all"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert ROOT and "Traceback" not in server.log.read_text()
