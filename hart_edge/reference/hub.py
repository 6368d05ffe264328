"""A source of weights that a user names: a folder, or a repository of a model hub, which is downloaded into its cache.

In: what was typed. Out: a folder, and what it is called in the record. Only a repository that a user names is ever
asked for, by huggingface_hub (the extra hub), with its progress bars; without network its cache is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hart_edge.errors import READING_FAULTS, CheckpointError, cause

REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")  # OWNER/NAME, OWNER/NAME@REVISION


@dataclass(frozen=True)
class Source:
    """folder: where the files lie; revision: of the repository, None where the source is a folder."""

    name: str
    folder: Path
    revision: str | None = None


def find_source(given: str, option: str, wanted: Sequence[str], what: str) -> Source:
    """The folder `given`, or the repository of that name, downloaded. Raises CheckpointError.

    option: that it was named with; wanted: patterns of the files to download; what: is to be found there, in words.
    """
    folder = Path(given)
    if folder.is_dir():
        return Source(given, folder.absolute())
    match = REPOSITORY.fullmatch(given)
    if match is None or folder.exists():
        raise CheckpointError(
            f"{option} {given}: expected a folder with {what}, or OWNER/NAME of a repository on a model hub, found "
            f"{'a file' if folder.exists() else 'no such folder'}; name the folder"
        )
    return download(match[1], match[2], option, wanted, what)


def download(repository: str, revision: str | None, option: str, wanted: Sequence[str], what: str) -> Source:
    """A repository in the hub's cache. Raises CheckpointError, and ModuleNotFoundError without the extra."""
    import huggingface_hub

    try:
        snapshot = huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=list(wanted))
    except READING_FAULTS:
        raise
    except Exception as error:  # the library's, its network library's and the system's share no base
        at = "" if revision is None else f" at {revision}"
        raise CheckpointError(
            f"{option} {repository}{at}: expected to download {what}, found no way to ({cause(error)}). Where there is "
            f"network, download these files of the repository {repository}: {', '.join(wanted)}; copy them here with "
            f"their folders, and name that folder: {option} DIR. Or copy the hub's cache (HF_HOME) of a machine that "
            "has them"
        ) from error
    return Source(repository, Path(snapshot), Path(snapshot).name)
