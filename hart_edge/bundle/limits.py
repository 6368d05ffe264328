"""The memory that this process may take: the machine's, or less where a control group or a limit of its own says so.

In: files of the kernel, below a root that tests replace. Out: bytes. A container is a control group (version 2, or the
controller `memory` of version 1), and the groups around it limit it too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")
GROUP, ADDRESSES = "the control group's limit", "the limit on addresses (ulimit -v)"


@dataclass(frozen=True)
class Memory:
    """What a process may take: bytes in all and available, None where the system does not say.

    limit: what keeps it from the machine's own memory, in words, None where nothing does; machine: bytes of that.
    """

    total: int | None
    available: int | None
    machine: int | None
    limit: str | None = None


def address_limit() -> int | None:
    """Bytes of addresses that this process may have; None for no limit."""
    try:
        import resource  # which Windows has not
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def process_memory(root: Path = ROOT, addresses: Callable[[], int | None] = address_limit) -> Memory:
    """What this process may take: the least of the machine's memory and of every limit."""
    found = machine_memory(root / "proc/meminfo")
    limits = [(GROUP, limit, free) for limit, free in _group_limits(root)]
    own = addresses()
    if own is not None:
        limits.append((ADDRESSES, own, own - _words(root / "proc/self/status").get("VmSize:", 0)))
    total, available, name = found.total, found.available, None
    for words, limit, free in limits:
        if total is None or limit < total:
            total, name = limit, words
        available = max(free, 0) if available is None else min(available, max(free, 0))
    return Memory(total, available, found.machine, name)


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes that this process could take now, those of cached files included; None where the system does not say."""
    return process_memory(root).available


def machine_memory(file: Path = ROOT / "proc/meminfo") -> Memory:
    """The machine's memory, whatever this process may have of it."""
    words = _words(file)
    total = words.get("MemTotal:")
    return Memory(total, words.get("MemAvailable:"), total)


def peak_memory() -> int:
    """The most resident bytes of this process so far; 0 where the system does not say.

    On Linux not getrusage's number, which survives exec and begins with what the process that started this one had.
    """
    if sys.platform == "darwin":
        import resource  # which Windows has not

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _words(ROOT / "proc/self/status").get("VmHWM:", 0)


def _words(file: Path) -> dict[str, int]:
    """Lines such as `VmHWM: 12 kB`, in bytes; empty where there is no such file."""
    lines = [line.split() for line in _text(file).splitlines()]
    return {each[0]: int(each[1]) * 1024 for each in lines if len(each) > 2 and each[1].isdigit() and each[2] == "kB"}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@dataclass(frozen=True)
class _Version:
    """The file names of a version of control groups. cache: of memory.stat, files that may be dropped."""

    limit: str
    usage: str
    cache: str


_V2 = _Version("memory.max", "memory.current", "inactive_file")
_V1 = _Version("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_NONE_FROM = 2**60  # version 1 writes a number of about 2**63 where there is no limit


def _group_limits(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, what is left of it), for this process's control group and every one around it that has a limit."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        version = _V1 if controllers else _V2
        for mounted, folder in _mounts(root, version):
            for group in _groups(mounted, folder, path):
                limit = _number(group / version.limit)
                if limit is not None and limit < _NONE_FROM:
                    yield limit, limit - max(0, (_number(group / version.usage) or 0) - _cached(group, version))


def _mounts(root: Path, version: _Version) -> list[tuple[str, Path]]:
    """(the group that is mounted, where): of the file systems of a version that this process sees."""
    found = []
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2" if version is _V2 else kind[0] == "cgroup" and "memory" in kind[2].split(","):
            found.append((fields[3], root / fields[4].lstrip("/").replace("\\040", " ")))
    return found or [("/", root / "sys/fs/cgroup" / ("" if version is _V2 else "memory"))]


def _groups(mounted: str, folder: Path, path: str) -> Iterator[Path]:
    """The folders from a process's group to the outermost that is mounted. A container may see only its own."""
    inside = PurePosixPath(path)
    relative = inside.relative_to(mounted) if inside.is_relative_to(mounted) else PurePosixPath()
    parts = [part for part in relative.parts if part not in ("/", "..")]
    for count in range(len(parts), -1, -1):
        yield folder.joinpath(*parts[:count])


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _cached(group: Path, version: _Version) -> int:
    lines = [line.split() for line in _text(group / "memory.stat").splitlines()]
    return next((int(each[1]) for each in lines if len(each) == 2 and each[0] == version.cache), 0)
