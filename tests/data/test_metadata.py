"""Captions files: both formats, and all that can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hart_edge.data.errors import DataError
from hart_edge.data.metadata import Row, read_metadata


def folder_with(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / f"metadata.{name}").write_text(text, "utf-8")
    return tmp_path


def test_csv(tmp_path: Path) -> None:
    text = '\ufefffile_name,split,text\r\nb.png,x,"a cat, black"\r\nsub/a.jpg,y, a dog \r\n'
    read = read_metadata(folder_with(tmp_path, csv=text))
    assert read.rows == (Row("b.png", ("a cat, black",)), Row("sub/a.jpg", ("a dog",)))
    assert read.problems == ()


def test_jsonl_with_several_captions(tmp_path: Path) -> None:
    lines = (
        '{"file_name": "a.png", "text": ["one", " two ", "", "one"], "size": 3}\n\n{"text": "z", "file_name": "b.png"}'
    )
    read = read_metadata(folder_with(tmp_path, jsonl=lines))
    assert read.rows == (Row("a.png", ("one", "two")), Row("b.png", ("z",)))


def test_groups_and_weights(tmp_path: Path) -> None:
    rows = '{"file_name": "a.png", "text": "a", "group": "x", "weight": 2}\n{"file_name": "b.png", "text": "b"}\n'
    more = '{"file_name": "c.png", "text": "c", "group": 7, "weight": null}\n'
    read = read_metadata(folder_with(tmp_path, jsonl=rows + more))
    assert read.rows == (Row("a.png", ("a",), "x", 2.0), Row("b.png", ("b",)), Row("c.png", ("c",), "7"))
    (tmp_path / "metadata.jsonl").unlink()
    read = read_metadata(folder_with(tmp_path, csv="file_name,weight,group,text\na.png,0.5, x ,a\nb.png,,,b\n"))
    assert read.rows == (Row("a.png", ("a",), "x", 0.5), Row("b.png", ("b",)))


@pytest.mark.parametrize("weight", ['"heavy"', "0", "-1", "true", "[1]", '"inf"', "NaN", "1" + "0" * 400])
def test_impossible_weights_are_refused(tmp_path: Path, weight: str) -> None:
    read = read_metadata(folder_with(tmp_path, jsonl=f'{{"file_name": "a.png", "text": "a", "weight": {weight}}}'))
    ((name, trouble),) = read.problems
    assert read.rows == () and name == "a.png" and trouble.startswith("expected a weight above 0, found ")


def test_a_name_may_begin_with_a_dot(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    read = read_metadata(folder_with(tmp_path, csv="file_name,text\n./a.png,a\n"))
    assert read.rows == (Row("./a.png", ("a",)),) and read.problems == ()


def test_problems_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("a.png", "lonely.PNG", "sub/deep.webp", ".hidden/x.png", "notes.txt"):
        (tmp_path / name).touch()
    text = "file_name,text\na.png,a\na.png,again\nempty.png, \nshort.png\n../out.png,x\n/etc/passwd.png,x\n,x\n"
    read = read_metadata(folder_with(tmp_path, csv=text))
    assert read.rows == (Row("a.png", ("a",)),)
    assert read.problems == (
        ("a.png", "named twice; the first row counts"),
        ("empty.png", "no caption: text is empty"),
        ("short.png", "no caption: text is empty"),
        ("../out.png", "expected a path inside the folder as file_name, found '../out.png'"),
        ("/etc/passwd.png", "expected a path inside the folder as file_name, found '/etc/passwd.png'"),
        ("metadata.csv", "expected a path inside the folder as file_name, found ''"),
        ("lonely.PNG", "no caption: not in metadata.csv"),
        ("sub/deep.webp", "no caption: not in metadata.csv"),
    )


@pytest.mark.parametrize("text", ["null", "[]", "3", '[null, " "]'])
def test_text_that_is_no_caption(tmp_path: Path, text: str) -> None:
    read = read_metadata(folder_with(tmp_path, jsonl=f'{{"file_name": "a.png", "text": {text}}}'))
    assert read.rows == () and read.problems == (("a.png", "no caption: text is empty"),)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected metadata.csv .* or metadata.jsonl .*, found neither; write one"),
        ({"csv": "file_name,text\n", "jsonl": ""}, "found both; keep one"),
        ({"csv": "file,caption\na,b\n"}, "expected columns file_name and text, found file, caption; name them so"),
        ({"csv": ""}, "expected columns file_name and text, found none; name them so"),
        (
            {"csv": f'file_name,text\na.png,"{"x" * 200_000}"\n'},
            "metadata.csv, after line 1: expected CSV, found field larger",
        ),
        ({"jsonl": '{"file_name": "a.png", "text": "x"}\n{"file_name": '}, "metadata.jsonl, line 2: expected a JSON"),
        ({"jsonl": "[" * 100_000}, "metadata.jsonl, line 1: expected a JSON object, found "),
        (
            {"jsonl": '["a.png"]'},
            "line 1: expected an object with file_name and text, found '\\[\"a.png\"\\]'; mend it",
        ),
        ({"jsonl": '{"file_name": 3}'}, "line 1: expected an object with file_name and text"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_metadata(folder_with(tmp_path, **files))


def test_no_folder_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder of pictures, found nothing"):
        read_metadata(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="expected a folder of pictures, found a file"):
        read_metadata(tmp_path / "file")
    (tmp_path / "metadata.csv").write_bytes(b"file_name,text\na.png,\xff\n")
    with pytest.raises(DataError, match=r"metadata.csv: expected UTF-8 text, found .*; write it anew"):
        read_metadata(tmp_path)


def test_an_unquoted_caption_with_commas(tmp_path: Path) -> None:
    text = 'file_name,text\na.png,a red, round heart\nb.png,"a blue, round heart"\nc.png,green,,\n'
    read = read_metadata(folder_with(tmp_path, csv=text))
    assert read.rows == (Row("b.png", ("a blue, round heart",)), Row("c.png", ("green",)))
    trouble = "1 more fields than columns: put quotes around a caption that holds commas"
    assert read.problems == (("a.png", trouble),)


@pytest.mark.parametrize(
    ("row", "trouble"),
    [
        ('"a.png", "text": "red \\ud83d"', "text holds half a character (a lone surrogate)"),
        ('"a.png", "text": ["red", "\\udc00"]', "text holds half a character (a lone surrogate)"),
        ('"a\\udcff.png", "text": "red"', "file_name holds half a character (a lone surrogate)"),
        ('"a.png", "text": "red", "group": "\\ud800"', "group holds half a character (a lone surrogate)"),
        ('"a.png", "text": "red\\u0000"', "text holds a NUL character"),
    ],
)
def test_lone_surrogates(tmp_path: Path, row: str, trouble: str) -> None:
    whole = '{"file_name": "b.png", "text": "\\ud83d\\ude00"}'  # the two surrogates of a pair
    read = read_metadata(folder_with(tmp_path, jsonl=f'{{"file_name": {row}}}\n{whole}\n'))
    assert read.rows == (Row("b.png", ("\U0001f600",)),) and [each for _, each in read.problems] == [trouble]


CSV = "file_name,text\na.png,gr\u00fcn\n"


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (CSV.encode("utf-16"), "found UTF-16; save it as UTF-8 .*iconv -f UTF-16"),
        (CSV.encode("utf-16-be"), "found UTF-16; save it as UTF-8"),
        (CSV.encode("utf-32"), "found UTF-32; save it as UTF-8"),
        (CSV.encode("latin-1"), "found byte 0xfc in line 2, as in Latin-1 or Windows-1252; .*write it anew"),
        (CSV.replace(",", ";").encode(), "expected commas between columns, found semicolons; save it with commas"),
        (CSV.replace(",", "\t").encode(), "expected commas between columns, found tabs; save it with commas"),
        (b'file_name,text\na.png,"red\nb.png,blue\n', "expected CSV, found unexpected end of data; mend it"),
        (b'file_name,text\na.png,"red\nb.png,"blue"\n', "after line 1: expected CSV, found ',' expected after"),
    ],
)
def test_files_in_another_form_are_refused_by_name(tmp_path: Path, contents: bytes, message: str) -> None:
    (tmp_path / "metadata.csv").write_bytes(contents)
    with pytest.raises(DataError, match=rf"metadata\.csv.*{message}"):
        read_metadata(tmp_path)
