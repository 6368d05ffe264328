"""`hart-edge generate`: the pictures it writes, the lines it prints, and the errors before it draws."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hart_edge
from hart_edge.bundle.verify import open_bundle
from hart_edge.cli import generate
from hart_edge.cli.generate import check_writable, picture_files, write_png
from hart_edge.errors import HartEdgeError, InputError
from hart_edge.runtime.pipeline import Pipeline
from tests.cli.command_line import PROMPT, ROOT, Run, Terminal, pixels, usage_ends_with
from tests.conftest import GOLDEN


def test_one_picture_and_one_line(run: Run, int8_bundle: Path, tmp_path: Path) -> None:
    status, out, err = run("generate", PROMPT, "--bundle", int8_bundle, "--seed", 7)
    assert (status, err) == (0, "")  # no progress: standard error is no terminal here
    assert re.fullmatch(r'picture\.png: "a grinning face", seed 7, \d+\.\d s\n', out)
    expected = hart_edge.generate(PROMPT, bundle=int8_bundle, seed=7)
    assert pixels(tmp_path / "picture.png") == expected.tobytes()
    assert os.listdir(tmp_path) == ["picture.png"]


def test_settings_reach_the_pipeline(run: Run, int8_bundle: Path, tmp_path: Path) -> None:
    chosen = ("--cfg-scale", 2, "--top-k", 5, "--top-p", 0.8, "--no-smooth", "--threads", 1)
    assert run("generate", PROMPT, "--bundle", int8_bundle, *chosen, "--out", "other.PNG")[0] == 0
    expected = hart_edge.load(int8_bundle, threads=1).generate(PROMPT, cfg_scale=2.0, top_k=5, top_p=0.8, smooth=False)
    assert pixels(tmp_path / "other.PNG") == expected.tobytes()


def test_words_without_quotes_are_prompts_of_their_own_and_a_note_says_so(
    run: Run, int8_bundle: Path, tmp_path: Path
) -> None:
    status, out, err = run("generate", "red", "heart", "--bundle", int8_bundle)
    assert (status, err) == (0, 'note: 2 prompts, a picture each; "red heart" in quotes is one prompt\n')
    assert out.count("\n") == 2 and sorted(os.listdir(tmp_path)) == ["picture-1.png", "picture-2.png"]


def test_several_prompts_as_json_with_previews(run: Run, int8_bundle: Path, tmp_path: Path) -> None:
    status, out, err = run(
        *("generate", PROMPT, "a red heart", "--bundle", int8_bundle, "--seed", 3, "--top-k", 9),
        *("--out", "two.png", "--previews", "deep/previews", "--json"),
    )
    assert (status, err) == (0, "")
    first, second = (json.loads(line) for line in out.splitlines())
    assert first.pop("seconds") > 0 and isinstance(second.pop("seconds"), float)
    sampling = open_bundle(int8_bundle).manifest.sampling
    previews = [f"deep/previews/two-1-scale-{scale}.png" for scale in range(7)]
    assert first == {
        "prompt": PROMPT,
        "seed": 3,
        "cfg_scale": sampling.cfg_scale,
        "top_k": 9,
        "top_p": sampling.top_p,
        "smooth": sampling.smooth,
        "speed": "exact",
        "bundle": str(int8_bundle),
        "bundle_sha256": hashlib.sha256((int8_bundle / "manifest.json").read_bytes()).hexdigest(),
        "version": hart_edge.__version__,
        "file": "two-1.png",
        "previews": previews,
        "size": [128, 128],
        "warnings": [],
    }
    assert (second["prompt"], second["file"]) == ("a red heart", "two-2.png")
    assert pixels(tmp_path / "two-1.png") == pixels(tmp_path / previews[-1]) != pixels(tmp_path / previews[0])
    alone = hart_edge.generate("a red heart", bundle=int8_bundle, seed=3, top_k=9)
    assert pixels(tmp_path / "two-2.png") == alone.tobytes()
    assert len(os.listdir(tmp_path / "deep/previews")) == 14


def test_like_draws_the_same_bytes_again(run: Run, int8_bundle: Path, plain_bundle: Path, tmp_path: Path) -> None:
    chosen = ("--bundle", int8_bundle, "--seed", 2**64 - 1, "--top-k", 9, "--no-smooth")
    assert run("generate", PROMPT, *chosen, "--out", "first.png")[0] == 0
    status, out, err = run("generate", "--like", "first.png", "--bundle", int8_bundle, "--out", "again.png")
    assert (status, err) == (0, "") and f'"{PROMPT}", seed {2**64 - 1}' in out
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "first.png").read_bytes()
    other = ("a red heart", "--like", "again.png", "--seed", 3, "--smooth", "--bundle", int8_bundle, "--json")
    told = json.loads(run("generate", *other)[1])
    assert (told["prompt"], told["seed"], told["top_k"], told["smooth"]) == ("a red heart", 3, 9, True)
    status, _, err = run("generate", "--like", "picture.png", "--bundle", plain_bundle)
    assert status == 2 and err.startswith("warning: --like picture.png: was drawn by bundle ")
    assert "holds no text model" in err


def test_like_of_a_context(run: Run, plain_bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("one.npz", "two.npz"):
        np.savez(name, context=rng.normal(size=(10, 56)), context_mask=np.ones(10, bool))
    drawn = ("--bundle", plain_bundle)
    assert run("generate", "--context", "one.npz", *drawn, "--seed", 5)[0] == 0
    status, _, err = run("generate", "--like", "picture.png", *drawn)
    assert status == 2 and "was drawn from a context array, which a picture does not hold" in err
    again = ("--like", "picture.png", "--out", "again.png", *drawn)
    assert run("generate", "--context", "one.npz", *again)[::2] == (0, "")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "picture.png").read_bytes()
    assert "from another context array" in run("generate", "--context", "two.npz", *again)[2]


def test_a_bar_on_a_terminal(run: Run, int8_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    with redirect_stderr(Terminal()) as screen:
        status, out, _ = run("generate", PROMPT, "--bundle", int8_bundle)
    assert status == 0 and out.startswith('picture.png: "a grinning face", seed 0, ')
    loading, first, *scales, last = screen.getvalue().split("\r\033[K")[1:]
    assert loading == "loading the bundle" and last == ""  # the line is cleared at the end
    assert first == f'[{"." * 24}]  "a grinning face"'
    assert [re.search(r"(\d) of 7 scales", each).group(1) for each in scales] == list("1234567")
    assert [each.count("#") for each in scales] == [3, 6, 10, 13, 17, 20, 24]
    assert max(map(len, (first, *scales))) <= 69  # a longer line would wrap


def test_an_existing_picture_is_replaced_as_a_whole(run: Run, int8_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/face.png").write_text("what was there")
    (tmp_path / "link.png").symlink_to("real/face.png")
    assert run("generate", PROMPT, "--bundle", int8_bundle, "--out", "link.png")[0] == 0
    assert (tmp_path / "link.png").is_symlink()
    assert len(pixels(tmp_path / "real/face.png")) == 128 * 128 * 3
    assert sorted(os.listdir(tmp_path / "real")) == ["face.png"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "real/face.png").stat().st_mode & 0o777 == 0o666 & ~umask


class Unsaved(Image.Image):
    """A picture that cannot be saved because the disk is full."""

    def save(self, fp: Any, *_: Any, **__: Any) -> None:
        fp.write(b"\x89PNG half")
        raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_leaves_the_old_picture(tmp_path: Path) -> None:
    file = tmp_path / "face.png"
    file.write_text("what was there")
    message = r"face\.png: could not be written \(.*No space left on device\); what was there before is unchanged"
    with pytest.raises(HartEdgeError, match=message):
        write_png(Unsaved(), file)
    assert file.read_text() == "what was there" and os.listdir(tmp_path) == ["face.png"]


def test_a_long_prompt_warns_in_one_line(run: Run, int8_bundle: Path) -> None:
    prompt = "a red\nheart and " * 12
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning that reached Python would raise
        status, out, err = run("generate", prompt, prompt, "--bundle", int8_bundle, "--json")
    assert status == 0
    shown = '"a red heart and a red heart and a red heart and a red hea..."'
    line = rf"warning: {re.escape(shown)}: the prompt has \d\d tokens, the model reads 24: the first 24 are kept"
    assert [bool(re.fullmatch(line, each)) for each in err.splitlines()] == [True, True]
    for told in map(json.loads, out.splitlines()):
        assert told["prompt"] == prompt and told["warnings"] == [err.splitlines()[0].split(": ", 2)[2]]


def test_a_context_instead_of_a_prompt(run: Run, plain_bundle: Path, tmp_path: Path) -> None:
    with np.load(GOLDEN / "plain" / "golden.npz") as records:
        tokens, mask = records["context"][0], records["context_mask"][0]
    np.savez("words.npz", context=tokens, context_mask=mask)
    status, out, err = run("generate", "--context", "words.npz", "--bundle", plain_bundle, "--seed", 2)
    assert (status, err) == (0, "") and re.fullmatch(r"picture\.png: words\.npz, seed 2, \d+\.\d s\n", out)
    expected = hart_edge.generate(hart_edge.Context(tokens, mask), bundle=plain_bundle, seed=2)
    assert pixels(tmp_path / "picture.png") == expected.tobytes()
    told = json.loads(run("generate", "--context", "words.npz", "--bundle", plain_bundle, "--json")[1])
    assert told["context"] == "words.npz" and "prompt" not in told


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda file: file.write_bytes(b"PK\x03\x04 and no more"), "File is not a zip file"),
        (lambda file: file.write_text("words"), ".*pickle.*"),
        (lambda file: file.write_bytes(b""), "No data left in file"),
        (lambda file: np.savez(file, context=np.zeros((10, 56))), "context"),
        (lambda file: np.savez(file, context=np.array([{}]), context_mask=np.ones(10)), "Object arrays cannot be .*"),
        (lambda file: file.write_bytes(npy()), "a single array"),
    ],
)
def test_context_files_that_cannot_be_read(run: Run, write: Callable[[Path], Any], found: str) -> None:
    write(Path("words.npz"))
    status, out, err = run("generate", "--context", "words.npz")
    expected = r"expected an npz file with context \(T, D\) float32 and context_mask \(T,\) bool"
    assert (status, out) == (2, "")
    assert usage_ends_with(err, "generate", rf"--context words\.npz: {expected}, found {found}"), err
    status, out, err = run("generate", "--context", "missing.npz")
    assert (status, out) == (2, "")
    assert usage_ends_with(err, "generate", rf"--context missing\.npz: no such file; {expected}"), err


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((10, 56)))
    return stream.getvalue()


def test_a_context_of_the_wrong_shape(run: Run, plain_bundle: Path) -> None:
    np.savez("words.npz", context=np.zeros((2, 10, 56), np.float32), context_mask=np.ones((2, 10), bool))
    status, _, err = run("generate", "--context", "words.npz", "--bundle", plain_bundle)
    message = r"Context\.tokens: expected float32 \(10, 56\), found float32 \(2, 10, 56\)"
    assert status == 2 and usage_ends_with(err, "generate", message)


def test_a_prompt_for_a_bundle_without_a_text_model(run: Run, plain_bundle: Path) -> None:
    status, _, err = run("generate", PROMPT, "--bundle", plain_bundle)
    assert status == 2 and "holds no text model, so it cannot read a prompt: expected --context FILE.npz" in err
    assert "context (10, 56) and context_mask (10,)" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seed", -1), r"seed: expected an integer from 0 to 2\*\*64 - 1, found -1; .*"),
        (("--seed", 2**64), r"seed: expected an integer from 0 to 2\*\*64 - 1, found 18446744073709551616; .*"),
        (("--cfg-scale", 101), r"cfg_scale: expected 0 to 100, found 101\.0; .*"),
        (("--cfg-scale", "nan"), "cfg_scale: expected a finite number, found nan"),
        (("--top-k", 0), "top_k: expected 1 to 600, found 0; .*"),
        (("--top-p", 0), r"top_p: expected above 0 and at most 1, found 0\.0; .*"),
        (("--threads", 0), "argument --threads: expected an integer from 1 to 1024, found '0'"),
        (("--out", "."), r"--out \.: expected a name that ends with \.png, found 'no ending'"),
        (("--out", "face.jpg"), r"--out face\.jpg: expected a name that ends with \.png, found '\.jpg'"),
        (("--out", "no/such/face.png"), r"--out no/such/face\.png: expected the folder .*/no/such, found none; .*"),
        (("--out", "folder.png"), r"--out folder\.png: expected a file or a new name, found a folder or device; .*"),
        (("--out", "loop.png"), r"--out loop\.png: no file can be written there \(.*loop.*\); name another folder"),
        (("--out", "/proc/face.png"), r"--out /proc/face\.png: no file can be written there \(.*\); name another .*"),
        (("--previews", "file"), r"--previews file: no file can be written there \(.*File exists: 'file'\); name .*"),
    ],
)
def test_bad_values_end_with_the_usage_and_nothing_is_written(
    run: Run, int8_bundle: Path, tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "loop.png").symlink_to("loop.png")
    status, out, err = run("generate", PROMPT, "--bundle", int8_bundle, *arguments)
    assert (status, out) == (2, "")
    assert usage_ends_with(err, "generate", message), err
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png", "loop.png"]


def test_the_second_prompt_is_checked_before_the_first_is_drawn(run: Run, int8_bundle: Path, tmp_path: Path) -> None:
    status, out, err = run("generate", PROMPT, " ", "--bundle", int8_bundle)
    message = "prompt: expected words, found an empty string; say what .*"
    assert (status, out) == (2, "") and usage_ends_with(err, "generate", message)
    assert os.listdir(tmp_path) == []


def test_an_unusable_out_is_found_before_the_bundle_is_read(run: Run) -> None:
    status, _, err = run("generate", PROMPT, "--bundle", "nowhere", "--out", "no/face.png")
    assert status == 2 and "expected the folder" in err and "bundle folder" not in err


def test_generate_loads_neither_torch_nor_onnx(int8_bundle: Path, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom hart_edge.cli.main import main\nstatus = main(sys.argv[1:])\n"
        "print(status, *sorted({'torch', 'onnx', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, "generate", PROMPT, "--bundle", str(int8_bundle), "--seed", "7"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["0"] and done.stderr == ""
    expected = hart_edge.generate(PROMPT, bundle=int8_bundle, seed=7)
    found = hashlib.sha256(pixels(tmp_path / "picture.png")).hexdigest()
    assert found == hashlib.sha256(expected.tobytes()).hexdigest()


def test_interrupted_in_the_middle_of_a_picture(run: Run, int8_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_text("what was there")

    class Interrupted(Pipeline):
        def stream(self, *arguments: Any, **more: Any) -> Any:
            yield next(super().stream(*arguments, **more))
            raise KeyboardInterrupt

    def interrupted(folder: Path, **_: Any) -> Pipeline:
        pipeline = hart_edge.load(folder)
        return Interrupted(pipeline.bundle, pipeline.runner)

    def by(a: Namespace) -> int:
        return generate.run(a, interrupted)

    assert run("generate", PROMPT, "--bundle", int8_bundle, by=by) == (130, "", "interrupted\n")
    assert os.listdir(tmp_path) == ["picture.png"] and (tmp_path / "picture.png").read_text() == "what was there"


def test_names_of_several_pictures() -> None:
    assert picture_files(Path("a/b.png"), 1) == [Path("a/b.png")]
    assert picture_files(Path("a/b.c.PNG"), 2) == [Path("a/b.c-1.PNG"), Path("a/b.c-2.PNG")]
    with pytest.raises(InputError, match=r"expected a name that ends with \.png, found 'no ending'"):
        picture_files(Path("a/b"), 1)


def test_names_are_checked_before_anything_is_drawn(tmp_path: Path) -> None:
    for name in ("a" * 251 + ".png", os.fsdecode(b"\xff.png"), "\u65e5" * 83 + ".png"):
        check_writable(tmp_path / name)
        write_png(Image.new("RGB", (2, 2)), tmp_path / name)
        assert len(pixels(tmp_path / name)) == 12
        (tmp_path / name).unlink()
    assert os.listdir(tmp_path) == []
    for name in ("a" * 252 + ".png", "a\0.png", "a/" * 3000 + "b.png"):
        with pytest.raises(InputError, match=r"no file can be written there|expected the folder"):
            check_writable(tmp_path / name)


def test_checking_names_leaves_existing_files_alone(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("mine")
    check_writable(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_text() == "mine" and os.listdir(tmp_path) == ["a.png"]


def test_previews_are_checked_before_anything_is_drawn(run: Run, int8_bundle: Path, tmp_path: Path) -> None:
    name = "a" * 250 + ".png"
    status, out, err = run("generate", PROMPT, "--bundle", int8_bundle, "--out", name, "--previews", "previews")
    assert (status, out) == (2, "") and re.search(r"error: --previews .*: no file can be written there \(", err)
    assert os.listdir(tmp_path) == ["previews"] and os.listdir(tmp_path / "previews") == []
    (tmp_path / "previews" / "picture-scale-3.png").mkdir()
    status, _, err = run("generate", PROMPT, "--bundle", int8_bundle, "--previews", "previews")
    assert status == 2 and "picture-scale-3.png: expected a file or a new name, found a folder or device" in err
