"""The instruction's text: from a file as it is, or from a constant of a Python file that is never run."""

from __future__ import annotations

from pathlib import Path

import pytest

from hart_edge.errors import CheckpointError
from hart_edge.reference.instruction import read_instruction


@pytest.mark.parametrize("text", ["Draw this:\n", "a\r\nb", "  spaces  ", "ünï 🙂"])
def test_a_text_counts_to_the_last_character(tmp_path: Path, text: str) -> None:
    path = tmp_path / "instruction.txt"
    path.write_bytes(text.encode())
    assert read_instruction(path) == text
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_instruction(path) == text


def test_a_constant_of_python_is_not_executed(tmp_path: Path) -> None:
    path, trace = tmp_path / "constants.py", tmp_path / "trace"
    path.write_text(
        f"open({str(trace)!r}, 'w')\nother = 'no'\n"
        'llm_system_prompt = """Say "it".\n\nPrompt:\\n"""\nmax_seq_len = 10240\n',
        "utf-8",
    )
    assert read_instruction(path) == 'Say "it".\n\nPrompt:\n'
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "content", "phrase"),
    [
        ("x.txt", b" \n\t", "expected an instruction, found nothing but spaces; build with --no-instruction"),
        ("x.txt", b"\xff\xfe", "expected UTF-8, found byte 0 that is none"),
        ("x.txt", b"version https://git-lfs.example/spec/v1\n", "found a git-lfs pointer to it"),
        ("x.py", b"def f(:", "not readable as Python ("),
        (
            "x.py",
            b"llm_system_prompt = 'a' + 'b'\nother = 'c'\n",
            "expected the constant llm_system_prompt, a s",
        ),
        ("x.py", b"def f():\n    llm_system_prompt = 'hidden'\n", "found these: none; name the file that has it"),
        ("x.py", b"llm_system_prompt = ''\n", "found nothing but spaces"),
        ("x.txt", b"x" * (2**20 + 1), "at most 1 MiB"),
    ],
)
def test_what_is_no_instruction(tmp_path: Path, name: str, content: bytes, phrase: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_instruction(tmp_path / name)
    assert phrase in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.txt: expected the instruction's text, found none \(No such file"):
        read_instruction(tmp_path / "none.txt")
