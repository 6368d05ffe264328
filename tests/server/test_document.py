"""The OpenAPI document by a tool that calls every route as it says.

Two minutes: python -m pytest -m slow tests/server/test_document.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.running import Server


@pytest.mark.slow
def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    """No answer that the document does not tell of, no other media type, no status of 500."""
    pytest.importorskip("schemathesis", reason="needs pip install 'hart-edge[server-tests]'")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.address}/openapi.json", "--checks", checks]
    command += ["--max-examples", "60", "--seed", "1", "--request-timeout", "20", "--suppress-health-check", "all"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Traceback" not in server.log.read_text()
