"""`hart-edge batch`: what it reads, what it leaves, and that a batch which was killed goes on without drawing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hart_edge
from hart_edge.batch.prompts import read_prompts
from hart_edge.cli.main import main
from hart_edge.data.metadata import read_metadata as read_captions
from hart_edge.errors import InputError
from hart_edge.runtime.picture_metadata import read_metadata
from tests.runtime.words_bundle import make_words_bundle

ROOT = Path(__file__).parents[2]
PROMPTS = [f"w{number} w{number + 1}" for number in range(1, 13)]


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words_bundle(tmp_path_factory.mktemp("words") / "tiny")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("\n\n".join(PROMPTS))
    return tmp_path


def batch(words: Path, *more: object) -> int:
    try:
        return main(["batch", "prompts.txt", "--out", "out", "--bundle", str(words), *map(str, more)])
    except SystemExit as end:  # of what cannot be meant
        return int(end.code or 0)


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("out").iterdir()}


def test_every_prompt_becomes_a_picture(words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch(words, "--seed", 2**64 - 2, "--cfg-scale", 2) == 0
    assert capsys.readouterr().out.startswith("out: 12 pictures in ")
    captions = read_captions(Path("out"))  # as training and eval read them
    assert captions.problems == () and [row.captions for row in captions.rows] == [(prompt,) for prompt in PROMPTS]
    rows = [json.loads(line) for line in Path("out/metadata.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows[:4]] == [2**64 - 2, 2**64 - 1, 0, 1] and rows[0]["cfg_scale"] == 2
    metadata = read_metadata(Path("out/000002.png"))
    assert (metadata.prompt, metadata.seed, metadata.settings["cfg_scale"]) == (PROMPTS[2], 0, 2)
    image = hart_edge.generate(PROMPTS[2], bundle=words, seed=0, cfg_scale=2.0)
    from PIL import Image

    with Image.open("out/000002.png") as found:
        assert found.tobytes() == image.tobytes()


def test_what_is_there_is_not_drawn_again(words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch(words) == 0
    before, stamps = files(), {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    for name in ("000003.png", "000009.png", "metadata.jsonl"):
        Path("out", name).unlink()
    capsys.readouterr()
    assert batch(words, "--json") == 0
    assert [json.loads(line)["file_name"] for line in capsys.readouterr().out.splitlines()] == [
        "000003.png",
        "000009.png",
    ]
    assert files() == before
    again = {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert {path.name for path in again} == {"000003.png", "000009.png"}


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_batch_that_was_killed_goes_on(words: Path, here: Path, number: int) -> None:
    assert batch(words) == 0
    expected = files()
    for path in Path("out").iterdir():
        path.unlink()
    many = "\n".join(PROMPTS * 100)
    Path("many.txt").write_text(many)
    command = [sys.executable, "-m", "hart_edge", "batch", "many.txt", "--out", "out", "--bundle", str(words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=here, env=environment, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while not Path("out/000012.png").exists():
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.002)
        process.send_signal(number)
        assert process.wait(60) == (-9 if number == signal.SIGKILL else 143)
    assert not Path("out/metadata.jsonl").exists()
    found = {name: data for name, data in files().items() if name in expected}
    assert found == {name: data for name, data in expected.items() if name != "metadata.jsonl"}


def test_pictures_of_another_batch_are_kept(words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert batch(words) == 0
    before = files()
    capsys.readouterr()
    assert batch(words, "--seed", 5) != 0
    said = capsys.readouterr().err
    assert "000000.png: expected a picture of this batch, found one with seed 0 where this has 5" in said
    assert files() == before


def test_formats_of_prompts(here: Path) -> None:
    (here / "p.csv").write_text('prompt,seed\n"a, b",7\nc,\n', "utf-8")
    (here / "p.jsonl").write_text('{"text": ["a", "b"], "file_name": "x.png"}\n\n{"prompt": "c", "seed": 3}\n')
    (here / "p.TXT").write_bytes("\ufeffä\r\n  \r\n b \r\n".encode())
    told = {name: [(item.prompt, item.seed, item.line) for item in read_prompts(here / name, 5)] for name in
            ("p.csv", "p.jsonl", "p.TXT")}  # fmt: skip
    assert told["p.csv"] == [("a, b", 7, 2), ("c", 6, 3)]
    assert told["p.jsonl"] == [("a", 5, 1), ("c", 3, 3)]
    assert told["p.TXT"] == [("ä", 5, 1), ("b", 6, 3)]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.doc", b"a", "found '.doc'"),
        ("p.txt", b"\n \n", "found none; write what to draw"),
        ("p.txt", b"a\xff", "found byte 0xff in line 1"),
        ("p.csv", b"words\na\n", "expected a column prompt or text, found words"),
        ("p.csv", b"prompt,seed\na,x\n", r"p\.csv, line 2: seed: expected an integer"),
        ("p.jsonl", b'{"prompt": "a", "seed": -1}', r"line 1: seed: expected an integer from 0"),
        ("p.jsonl", b'{"prompt": ""}', "line 1: expected words as prompt, found ''"),
        ("p.jsonl", b'{"text": []}', "line 1: expected words as prompt"),
        ("p.jsonl", b"[1]", r"line 1: expected a JSON object, found '\[1\]'"),
        ("p.jsonl", b"{", "line 1: expected a JSON object"),
    ],
)
def test_files_that_hold_no_prompts(here: Path, name: str, data: bytes, message: str) -> None:
    (here / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_prompts(here / name, 0)
    for missing in ("nowhere.txt", "nowhere"):
        with pytest.raises(
            InputError, match=rf"{missing}: no such file; expected a \.txt file with a prompt on each line"
        ):
            read_prompts(here / missing, 0)


def test_a_prompt_that_cannot_be_drawn_is_found_first(words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("prompts.txt").write_text("w1\nw2\nzebra\n")
    assert batch(words) != 0
    assert "prompts.txt, line 3: prompt: 'zebra' has no token of this model's tokenizer" in capsys.readouterr().err
    assert not Path("out").exists()


def test_workers_are_of_ray(words: Path) -> None:
    assert batch(words, "--workers", 2) == 2
