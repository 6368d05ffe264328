"""Graphs as ONNX Runtime has them once they are open, optimised and with their weights packed, kept in a folder.

In: the graphs of a bundle. Out: files that are mapped when they are opened: nothing is computed or copied then, a
system that is short of memory may drop their pages, and processes that use the same folder share them. They are of one
version of the library on one kind of processor, which their names tell; whoever needs the space may delete any of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hart_edge.bundle.files import file_entry
from hart_edge.bundle.manifest import FileEntry
from hart_edge.bundle.unchanged import VerifiedFiles
from hart_edge.engines.machine import processor
from hart_edge.errors import BundleError, EngineError
from hart_edge.staging import staged_folder, take_name

GRAPH, WEIGHTS, LIST = "graph.onnx", "graph.onnx.data", "files.json"
BESIDE_FROM = 1024  # bytes of a tensor that lies in WEIGHTS
KEY = 16  # characters
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class PreparedGraphs:
    """The graphs of one folder. What it holds is verified once, by size and SHA-256, before the library opens it."""

    def __init__(self, folder: Path, onnxruntime: Any) -> None:
        """The folder is made where there is none. Raises EngineError where it cannot be used."""
        self._folder, self._machine = folder, f"{onnxruntime.__version__} {processor()}"
        self._verified: dict[Path, VerifiedFiles] = {}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.name == "posix" and folder.stat().st_mode & OTHERS_MAY_WRITE:
                raise EngineError(
                    f"{folder}: expected a folder for prepared graphs that only its owner can write to, found others "
                    f"may; chmod go-w {folder}, or name another"
                )
        except OSError as error:
            raise EngineError(f"{folder}: expected a folder for prepared graphs, found none ({error})") from error

    @contextmanager
    def opened(self, graph: str, sha256: str, write: Callable[[Any, Path], None]) -> Iterator[Path]:
        """The prepared file of a graph, for the time that it takes to open it.

        sha256: of the bundle's graph and its weights; write: called where there is no such file yet, with the options
        that a session must have besides its usual ones, and its path. Raises EngineError.
        """
        place = self._folder / f"{graph}-{self._key(sha256)}"
        remedy = f"delete {place}, and it is written anew"
        try:
            if place not in self._verified:
                if not (place / LIST).is_file():
                    self._write(place, write)
                self._verified[place] = listed_files(place)
            with self._verified[place].opened((GRAPH, WEIGHTS)):
                yield place / GRAPH
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError(
                f"{place}: the prepared graph cannot be kept or read ({error}); free space, or {remedy}"
            ) from error
        except BundleError as error:
            raise EngineError(f"{place}: the prepared graph was altered ({error}); {remedy}") from error

    def _key(self, sha256: str) -> str:
        """What a prepared graph depends on, in short."""
        return hashlib.sha256(f"{sha256} {self._machine}".encode()).hexdigest()[:KEY]

    def _write(self, place: Path, write: Callable[[Any, Path], None]) -> None:
        """Write a graph beside its place, whole and on disk before it gets its name."""
        with staged_folder(place) as folder:
            try:
                write(self._saving, folder / GRAPH)
            except EngineError as error:
                raise EngineError(
                    f"{place}: the prepared graph cannot be written ({error}); free space, or leave the folder out"
                ) from error
            (folder / WEIGHTS).touch()  # of a graph without large weights there is none
            listed = {name: asdict(file_entry(folder / name)) for name in (GRAPH, WEIGHTS)}
            (folder / LIST).write_text(json.dumps(listed), "utf-8")
            for name in (*listed, LIST):
                with (folder / name).open("r+b") as file:
                    os.fsync(file.fileno())
            if not place.exists():  # another process may have been faster
                take_name(folder, place)

    @staticmethod
    def _saving(options: Any, path: Path) -> None:
        """Make a session with these options leave its graph at `path`."""
        options.optimized_model_filepath = str(path)
        for key, value in (
            ("session.optimized_model_external_initializers_file_name", WEIGHTS),
            ("session.optimized_model_external_initializers_min_size_in_bytes", str(BESIDE_FROM)),
            ("session.save_external_prepacked_constant_initializers", "1"),
        ):
            options.add_session_config_entry(key, value)


def listed_files(place: Path) -> VerifiedFiles:
    """The files of a prepared graph, to be held against their list. Raises OSError, and the errors of a bad list."""
    listed = json.loads((place / LIST).read_text("utf-8"))
    entries = {name: FileEntry(int(listed[name]["bytes"]), str(listed[name]["sha256"])) for name in (GRAPH, WEIGHTS)}
    return VerifiedFiles(place, entries, {})
