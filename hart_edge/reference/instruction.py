"""The instruction that a text model reads in front of every prompt: a text, or a constant in a Python file.

In: a file that a user names, or text_model/prompt.txt. Out: its text, every character of which counts. A Python file is
parsed and never executed. Source of the name: hart/utils/constants.py of the published code.
"""

from __future__ import annotations

import ast
from pathlib import Path

from hart_edge.errors import CheckpointError
from hart_edge.reference.weight_files import require_fetched

INSTRUCTION_FILE = "prompt.txt"  # in text_model/
CONSTANT = "llm_system_prompt"
PYTHON = ".py"
MOST_BYTES = 2**20


def read_instruction(path: Path) -> str:
    """The text of a file, or of the constant llm_system_prompt in a Python file. Raises CheckpointError."""
    require_fetched(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CheckpointError(f"{path}: expected an instruction of at most 1 MiB, found more; name another file")
        with path.open(encoding="utf-8-sig", newline="") as file:  # line ends as they are, and no byte order mark
            text = file.read()
    except OSError as error:
        raise CheckpointError(f"{path}: expected the instruction's text, found none ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: expected UTF-8, found byte {error.start} that is none; save it again") from None
    if path.suffix == PYTHON:
        text = _constant(path, text)
    if not text.strip():
        raise CheckpointError(f"{path}: expected an instruction, found nothing but spaces; build with --no-instruction")
    return text


def _constant(path: Path, source: str) -> str:
    """The constant of a module, as Python would have it, without running anything."""
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"{path}: not readable as Python ({error}); save the text itself in a .txt file"
        ) from None
    found: dict[str, str] = {}
    for statement in module.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        value = getattr(statement, "value", None)
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            found |= {target.id: value.value for target in targets if isinstance(target, ast.Name)}
    if CONSTANT not in found:
        names = ", ".join(sorted(found)) or "none"
        raise CheckpointError(
            f"{path}: expected the constant {CONSTANT}, a string, found these: {names}; name the file that has it, or "
            "save the text itself in a .txt file"
        )
    return found[CONSTANT]
