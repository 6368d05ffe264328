"""`hart-edge import`: a published model's repositories in, a checkpoint that a build reads out."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from hart_edge.cli.command import Commands, needs_extra, new_command
from hart_edge.cli.progress import StatusLine
from hart_edge.units import size

NO_INSTRUCTION = "none"
# The files that are downloaded of a repository: what a checkpoint is made of, and what tells its licence.
HART_FILES = ("llm/config.json", "llm/ema_model.*", "llm/model*", "llm/pytorch_model*", "tokenizer/*", "sampling.json",
              "licences.json", "README.md", "LICENSE*")  # fmt: skip
TEXT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model*.safetensors*", "pytorch_model*.bin*",
              "README.md", "LICENSE*")  # fmt: skip


def add(commands: Commands) -> None:
    p = new_command(commands, "import", "Put a checkpoint together from a published model's repositories.", run)
    p.add_argument(
        "--hart", required=True, metavar="DIR|HUB-ID", help="holds llm/ and tokenizer/; OWNER/NAME[@REVISION]"
    )
    p.add_argument(
        "--text-model", required=True, metavar="DIR|HUB-ID", help="holds the text model; OWNER/NAME[@REVISION]"
    )
    p.add_argument(
        "--instruction",
        required=True,
        metavar="FILE|none",
        help="what the text model reads in front of every prompt: a text, or a Python file with llm_system_prompt, "
        "which is not executed",
    )
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the checkpoint")
    p.add_argument("--copy", action="store_true", help="copy the files instead of linking to them")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(a: argparse.Namespace) -> int:
    with needs_extra("putting a checkpoint together", "export"):
        from hart_edge.reference.assemble import assemble
        from hart_edge.reference.hub import find_source
        from hart_edge.reference.instruction import read_instruction
    instruction = "" if a.instruction == NO_INSTRUCTION else read_instruction(Path(a.instruction))
    with needs_extra("downloading a repository", "hub"):
        hart = find_source(a.hart, "--hart", HART_FILES, "llm/ and tokenizer/")
        text_model = find_source(a.text_model, "--text-model", TEXT_FILES, "the text model's weights and tokenizer")
    with StatusLine() as bar:
        done = assemble(hart, text_model, instruction, a.instruction, a.out, copy=a.copy, say=bar.say)
    command = ["hart-edge", "build", "--checkpoint", str(a.out), "--precision", "int8"]
    command += [] if instruction else ["--no-instruction"]
    if a.json:
        counts = {"files": done.files, "bytes": done.size, "instruction_characters": done.instruction}
        print(json.dumps({"checkpoint": str(a.out), **counts, "build": shlex.join(command)}))
    else:
        with_instruction = f"an instruction of {done.instruction} characters" if instruction else "no instruction"
        print(f"{a.out}: {done.files} files of {size(done.size)}, with {with_instruction}; build a bundle of it with")
        print(f"    {shlex.join(command)}")
    return 0
