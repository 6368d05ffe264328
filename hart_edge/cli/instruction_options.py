"""Which instruction the text model reads in front of every prompt: options of `hart-edge build` and `calibrate`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_instruction_arguments(p: argparse.ArgumentParser) -> None:
    either = p.add_mutually_exclusive_group()
    either.add_argument(
        "--instruction",
        type=Path,
        metavar="FILE",
        help="what the text model reads in front of every prompt: a text, or a Python file with llm_system_prompt, "
        "which is not executed (default: text_model/prompt.txt)",
    )
    either.add_argument("--no-instruction", action="store_true", help="the text model reads prompts alone")


def instruction_of(a: argparse.Namespace) -> str | None:
    """The text that was asked for, "" for none, None for the checkpoint's. Raises CheckpointError."""
    if a.no_instruction:
        return ""
    if a.instruction is None:
        return None
    from hart_edge.reference.instruction import read_instruction  # with torch behind it

    return read_instruction(a.instruction)
