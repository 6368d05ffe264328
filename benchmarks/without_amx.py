"""Run a command as on a processor without AMX: what oneDNN and ONNX Runtime do with AVX-512, VNNI and bfloat16 alone.

    python -m benchmarks.without_amx hart-edge bench BUNDLE --reference hart-0.7b-256

In: a command line. Out: that command in this process's place, with its exit status. Linux gives a process the tiles of
AMX when it asks for them (arch_prctl, ARCH_REQ_XCOMP_PERM), and both libraries ask before they use any. A filter of
system calls (seccomp) answers that one call with EPERM, in all children as well, so both take their next best kernels.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence
from errno import EPERM

ARCH_PRCTL, REQUEST_PERMISSION = 158, 0x1023  # of x86_64
AUDIT_ARCH_X86_64 = 0xC000003E
NUMBER, ARCH, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | EPERM
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER_MODE = 38, 22, 2

# Each instruction: its code, how many to skip if equal and if not, its operand (struct sock_filter).
INSTRUCTIONS = (
    (LOAD, 0, 0, ARCH),
    (EQUAL, 0, 5, AUDIT_ARCH_X86_64),
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 0, 3, ARCH_PRCTL),
    (LOAD, 0, 0, FIRST_ARGUMENT),
    (EQUAL, 0, 1, REQUEST_PERMISSION),
    (RETURN, 0, 0, REFUSE),
    (RETURN, 0, 0, ALLOW),
)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse_amx() -> None:
    """For this process and its children, for good. Raises OSError where the system does not let it."""
    libc = ctypes.CDLL(None, use_errno=True)
    instructions = b"".join(struct.pack("HBBI", *each) for each in INSTRUCTIONS)
    program = _Program(len(INSTRUCTIONS), instructions)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, FILTER_MODE, ctypes.byref(program))):
        if libc.prctl(*call, 0, 0):
            raise OSError(ctypes.get_errno(), "the system refuses a filter of its calls (seccomp)")


def main(command: Sequence[str]) -> int:
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        print("expected Linux on x86_64, where AMX is; run the command as it is", file=sys.stderr)
        return 2
    refuse_amx()
    os.execvp(command[0], list(command))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
