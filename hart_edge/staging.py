"""What is written beside its place and takes its name at the end: hidden folders and files, and whose they are.

In: the path that something is to have. Out: a hidden folder or file beside it, which becomes it or vanishes. A process
that is killed can remove nothing; its folder says whose it was (process and boot, and a lock that ends with the
process), its file has that lock, and the next write to the same place removes it. What belongs to a living process is
never touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no such locks: there nothing is marked, and nothing swept
    fcntl = None

log = logging.getLogger(__name__)

OWNER_FILE = ".owner"  # in a hidden folder: {"pid": 7, "started": 123, "boot": "..."}
BUILDING, REPLACED = ".building-", ".replaced-"
WRITING = ".writing-"  # of files
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MOST_NAME = 255  # bytes of a file's name, where the file system does not say
RANDOM = 8  # characters that mkdtemp adds


def hidden_name(folder: Path, name: str, ending: str) -> str:
    """`.NAMEENDING`, which the file system of `folder` takes: a long name is cut, and its hash keeps it apart."""
    try:
        most = os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        most = MOST_NAME
    kept, rest = name, ending
    if len(os.fsencode(f".{name}{ending}")) + RANDOM > most:
        rest = f"-{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}{ending}"
    while kept and len(os.fsencode(f".{kept}{rest}")) + RANDOM > most:
        kept = kept[:-1]
    return f".{kept}{rest}"


@contextlib.contextmanager
def staged_folder(final: Path, ending: str = BUILDING) -> Iterator[Path]:
    """A new hidden folder beside `final`, gone when the block ends unless take_name() gave it that name.

    What dead processes left for the same place is removed first. Raises OSError.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    sweep(final, ending)
    folder = Path(tempfile.mkdtemp(prefix=hidden_name(final.parent, final.name, ending), dir=final.parent))
    try:
        folder.chmod(0o755)
        with claimed(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # gone already when all went well


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Mark a folder as this process's while the block runs. Raises FolderInUseError where a living one has it, OSError.

    take_name() removes the mark before the folder is seen under its name.
    """
    if fcntl is None:
        yield
        return
    file = os.open(folder / OWNER_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        locked = _lock(file)
        if locked is False or (locked is None and _living(_read(file))):
            raise FolderInUseError(f"{folder}: another process writes to it")
        mark = {"pid": os.getpid(), "started": _started(os.getpid()), "boot": boot_id()}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(mark).encode(), 0)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (folder / OWNER_FILE).unlink(missing_ok=True)
    finally:
        os.close(file)


class FolderInUseError(OSError):
    """A folder that a living process writes to."""


def take_name(folder: Path, final: Path, rename: Callable[[Path, Path], None] = os.rename) -> None:
    """Rename a folder to `final`, beside which it lies. One of that name makes way, and comes back on failure."""
    (folder / OWNER_FILE).unlink(missing_ok=True)
    if not final.exists():
        rename(folder, final)
        return
    with staged_folder(final, REPLACED) as replaced:
        before = replaced / "earlier"
        try:
            rename(final, before)
            rename(folder, final)
        finally:
            if before.exists() and not final.exists():
                rename(before, final)


@contextlib.contextmanager
def hidden_file(final: Path) -> Iterator[BinaryIO]:
    """A new hidden file beside `final`, open for writing; gone when the block ends, unless it was renamed.

    It is locked, where the file system has locks: sweep_files() leaves it alone. Raises OSError.
    """
    prefix = hidden_name(final.parent, final.name, WRITING)
    while True:
        part = final.with_name(f"{prefix}{secrets.token_hex(RANDOM // 2)}")
        stream = part.open("xb")
        if _lock_new(stream.fileno(), part):
            break
        stream.close()
    try:
        with stream:
            yield stream
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def staged_file(final: Path) -> Iterator[BinaryIO]:
    """A hidden file beside `final`, open for writing, that takes its name when the block ends well. Raises OSError."""
    with hidden_file(final) as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
        if fcntl is None:  # Windows renames no file that is open
            stream.close()
        os.replace(stream.name, final)


def sweep_files(files: Iterable[Path]) -> None:
    """Remove the hidden files that dead processes left for any of `files`, and say so in the log. Raises OSError.

    A file that has a lock belongs to a living process; where there are no locks nothing is removed.
    """
    if fcntl is None:
        return
    prefixes: dict[Path, set[str]] = {}
    for file in files:
        prefixes.setdefault(file.parent, set()).add(hidden_name(file.parent, file.name, WRITING))
    for folder, known in prefixes.items():
        for name in os.listdir(folder):
            if name[:-RANDOM] not in known:
                continue
            with contextlib.suppress(OSError):
                part = folder / name
                held = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe of that name waits for no one
                try:
                    if _lock(held):
                        part.unlink()
                        log.warning("%s: removed; a process that was killed had left it behind", part)
                finally:
                    os.close(held)


def sweep(final: Path, *endings: str) -> None:
    """Remove the hidden folders that dead processes left for `final`, and say so in the log. Raises OSError.

    What a process that died between the two renames of take_name() had moved away gets its name back.
    """
    for ending in dict.fromkeys((*endings, BUILDING, REPLACED)):
        prefix = hidden_name(final.parent, final.name, ending)
        for name in os.listdir(final.parent):
            folder = final.parent / name
            if not name.startswith(prefix) or "." in name[len(prefix) :] or folder.is_symlink():
                continue
            with contextlib.suppress(OSError), _of_the_dead(folder) as dead:
                if dead and ending == REPLACED and (folder / "earlier").exists() and not final.exists():
                    os.rename(folder / "earlier", final)
                    log.warning("%s: was put back; a process that was killed had moved it away", final)
                if dead:
                    shutil.rmtree(folder)
                    log.warning("%s: removed; a process that was killed had left it behind", folder)


@contextlib.contextmanager
def _of_the_dead(folder: Path) -> Iterator[bool]:
    """Whether a folder's owner is certainly gone; while the block runs no other process can claim it."""
    try:
        file = os.open(folder / OWNER_FILE, os.O_RDWR)
    except FileNotFoundError:  # not claimed yet, or about to take its name
        yield False
        return
    try:
        yield _lock(file) is not False and bool(mark := _read(file)) and not _living(mark)
    finally:
        os.close(file)


def _lock(file: int) -> bool | None:
    """Lock an open file until it is closed, which the end of a process does. False: another holds the lock."""
    assert fcntl is not None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: process and boot alone decide
        return None
    return True


def _lock_new(file: int, path: Path) -> bool:
    """Lock a file that was just made; False where sweep_files() was faster and has removed it."""
    if fcntl is None:
        return True
    with contextlib.suppress(OSError):  # a file system without locks, where nothing is swept
        fcntl.flock(file, fcntl.LOCK_EX)
    return path.exists()


def _read(file: int) -> dict[str, object]:
    try:
        mark = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return mark if isinstance(mark, dict) else {}


def _living(mark: dict[str, object]) -> bool:
    """Whether the process of a mark may still run: it is of this boot, and its number is that of the same process."""
    pid = mark.get("pid")
    if not isinstance(pid, int) or mark.get("boot") != boot_id():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        pass
    started = _started(pid)
    return started is None or mark.get("started") in (None, started)


def _started(pid: int) -> int | None:
    """When a process began, in the kernel's ticks; 0: it has ended and waits for its parent; None: unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
        return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def boot_id() -> str:
    """What changes with every start of the machine; "" where the system does not say, and the process alone counts."""
    try:
        return BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
