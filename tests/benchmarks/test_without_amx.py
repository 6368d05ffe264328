"""A command behind benchmarks.without_amx is refused AMX, in its children as well, and nothing else."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="AMX is a part of x86_64, and the filter Linux's"
)

# Whether the system gives this process AMX's tiles, and then the same in a child; a call of the same number that is
# none of AMX's (ARCH_GET_FS, into a buffer) still works.
ASK = """
import ctypes, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(158, 0x1023, 18), ctypes.get_errno(), libc.syscall(158, 0x1003, ctypes.byref(ctypes.c_ulong())))
if len(sys.argv) == 1:
    sys.stdout.flush()
    sys.exit(subprocess.run([sys.executable, "-c", {ask!r}, "child"]).returncode + 7)
"""


def call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.without_amx", *command], capture_output=True, text=True, check=False
    )


def test_amx_is_refused_and_nothing_else() -> None:
    child = ASK.partition("if len")[0]
    done = call(sys.executable, "-c", ASK.replace("{ask!r}", repr(child)))
    assert done.stdout.splitlines() == ["-1 1 0", "-1 1 0"], done.stderr
    assert done.returncode == 7  # the command's own


def test_no_command_says_how_to_use_it() -> None:
    done = call()
    assert done.returncode == 2 and "python -m benchmarks.without_amx" in done.stderr
