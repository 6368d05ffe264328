"""tokenizer.json files that the C tokenizer refuses, with the reasons, and files with random damage."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.runtime.native.library import Status
from tests.runtime.native.tokenizer_door import CTokenizer, PythonTokenizer, RefusedError
from tests.runtime.native.tokenizer_files import LOWER, NFC, added, byte_level, small, split

AGAIN = "; copy it again"
PYTHON = "; the C runtime reads byte-level BPE as Qwen2 has it, run this bundle from Python"

File = dict[str, Any]


def refusal(doors: Any, definition: str | bytes) -> str:
    """The message with which a file is refused, which must be a bundle error of one line."""
    with pytest.raises(RefusedError) as refused:
        CTokenizer(doors, definition)
    assert refused.value.status == Status.BUNDLE_ERROR
    assert "\n" not in refused.value.message
    start, message = refused.value.message.split(" ", 1)
    assert start == "tokenizer.json:"
    return message


def model(**changed: Any) -> Callable[[File], None]:
    return lambda file: file["model"].update(changed)


def key(name: str, value: Any) -> Callable[[File], None]:
    return lambda file: file.update({name: value})


def without(*path: str | int) -> Callable[[File], None]:
    def edit(file: Any) -> None:
        for step in path[:-1]:
            file = file[step]
        del file[path[-1]]

    return edit


def token(**changed: Any) -> Callable[[File], None]:
    return lambda file: file["added_tokens"][0].update(changed)


def template(**changed: Any) -> Callable[[File], None]:
    return lambda file: file["post_processor"].update(changed)


def steps(*each: Any) -> Callable[[File], None]:
    return key("pre_tokenizer", {"type": "Sequence", "pretokenizers": list(each)})


A, B = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}

REFUSED: dict[str, tuple[Callable[[File], None], str]] = {
    # The file as a whole
    "version": (key("version", "2.0"), 'version: expected "1.0", found "2.0"' + PYTHON),
    "unknown key": (key("extra", 1), "extra: expected no such key, found one" + AGAIN),
    "padding": (key("padding", 3), "padding: expected an object or null, found 3" + AGAIN),
    # Added tokens
    "added_tokens": (key("added_tokens", {}), "added_tokens: expected a list, found an object" + AGAIN),
    "added token": (key("added_tokens", [7]), "added_tokens[0]: expected an added token, found 7" + AGAIN),
    "id": (token(id=-1), "added_tokens[0].id: expected an id from 0 to 4294967295, found -1" + AGAIN),
    "flag": (token(lstrip=1), "added_tokens[0].lstrip: expected true or false, found 1" + AGAIN),
    "no flag": (without("added_tokens", 0, "rstrip"), "added_tokens[0].rstrip: expected a value, found none" + AGAIN),
    "content": (token(content=None), "added_tokens[0].content: expected a text, found null" + AGAIN),
    "long content": (
        token(content="\u00e9" * 513),
        "added_tokens[0].content: expected at most 1024 bytes, found 1026" + PYTHON,
    ),
    "tokens that become one": (
        lambda file: file.update(
            normalizer=LOWER, added_tokens=[added("Ab", normalized=True), added("aB", normalized=True)]
        ),
        'added_tokens: expected every token once, as it is normalised, found "ab" twice' + AGAIN,
    ),
    # Normalising
    "normalizer": (
        key("normalizer", {"type": "NFKC"}),
        'normalizer.type: expected NFC, Lowercase or Sequence, found "NFKC"' + PYTHON,
    ),
    "normalizer inside": (
        key("normalizer", {"type": "Sequence", "normalizers": [NFC, {"type": "Strip", "strip_left": True}]}),
        'normalizer.normalizers[1].type: expected NFC, Lowercase or Sequence, found "Strip"' + PYTHON,
    ),
    "no type": (key("normalizer", {}), "normalizer.type: expected a value, found none" + AGAIN),
    "17 normalizers": (
        key("normalizer", {"type": "Sequence", "normalizers": [NFC] * 17}),
        "normalizer.normalizers[16]: expected at most 16 steps, found more" + PYTHON,
    ),
    # Pre-tokenizing
    "no pre_tokenizer": (
        key("pre_tokenizer", None),
        "pre_tokenizer: expected ByteLevel as its last step, found none" + PYTHON,
    ),
    "no bytes": (steps(split()), "pre_tokenizer: expected ByteLevel as its last step, found none" + PYTHON),
    "bytes twice": (
        steps(byte_level(), byte_level()),
        'pre_tokenizer.pretokenizers[1]: expected ByteLevel as the last of the sequence, found "ByteLevel" behind it'
        + PYTHON,
    ),
    "another pre-tokenizer": (
        steps({"type": "Digits", "individual_digits": True}, byte_level()),
        'pre_tokenizer.pretokenizers[0].type: expected Split, ByteLevel or Sequence, found "Digits"' + PYTHON,
    ),
    "another pattern": (
        steps(split(r"(a+)+b"), byte_level()),
        "pre_tokenizer.pretokenizers[0].pattern.Regex: expected the pattern of Qwen2, Llama 3 or GPT-2, "
        'found "(a+)+b"' + PYTHON,
    ),
    "text pattern": (
        steps(split() | {"pattern": {"String": " "}}, byte_level()),
        'pre_tokenizer.pretokenizers[0].pattern: expected Regex, found "String"' + PYTHON,
    ),
    "behavior": (
        steps(split(behavior="Removed"), byte_level()),
        'pre_tokenizer.pretokenizers[0].behavior: expected Isolated, or Removed with invert, found "Removed"' + PYTHON,
    ),
    "17 splits": (
        steps(*[split()] * 17, byte_level()),
        "pre_tokenizer.pretokenizers[16]: expected at most 16 steps, found more" + PYTHON,
    ),
    # Post-processing
    "post_processor": (
        key("post_processor", {"type": "BertProcessing", "sep": ["s", 1], "cls": ["c", 2]}),
        'post_processor.type: expected TemplateProcessing, ByteLevel or Sequence, found "BertProcessing"' + PYTHON,
    ),
    "no sequence": (
        template(single=[]),
        "post_processor.single: expected special tokens around one Sequence A, found others" + PYTHON,
    ),
    "sequence twice": (
        template(single=[A, A]),
        "post_processor.single: expected special tokens around one Sequence A, found others" + PYTHON,
    ),
    "sequence B": (
        template(single=[B]),
        "post_processor.single: expected special tokens around one Sequence A, found others" + PYTHON,
    ),
    "piece": (
        template(single=[A | B | {"x": 1}]),
        "post_processor.single[0]: expected one of Sequence, SpecialToken, found 2 keys" + AGAIN,
    ),
    "token of a template": (
        template(special_tokens={}),
        "post_processor.special_tokens.E: expected a value, found none" + AGAIN,
    ),
    "id of a template": (
        template(special_tokens={"E": {"id": "E", "ids": [2**32], "tokens": ["e"]}}),
        "post_processor.special_tokens.E.ids[0]: expected an id from 0 to 4294967295, found 4294967296" + AGAIN,
    ),
    "two templates": (
        lambda file: file.update(post_processor={"type": "Sequence", "processors": [file["post_processor"]] * 2}),
        "post_processor.processors[1]: expected one TemplateProcessing, found two" + PYTHON,
    ),
    # The model
    "no model": (without("model"), "model: expected a value, found none" + AGAIN),
    "another model": (model(type="Unigram"), 'model.type: expected "BPE", found "Unigram"' + PYTHON),
    "unknown key of the model": (model(extra=1), "model.extra: expected no such key, found one" + AGAIN),
    "dropout": (model(dropout=0.1), "model.dropout: expected null, found 0.1" + PYTHON),
    "prefix": (
        model(continuing_subword_prefix="##"),
        'model.continuing_subword_prefix: expected null, found "##"' + PYTHON,
    ),
    "suffix": (model(end_of_word_suffix="</w>"), 'model.end_of_word_suffix: expected null, found "</w>"' + PYTHON),
    "no vocabulary": (without("model", "vocab"), "model.vocab: expected a value, found none" + AGAIN),
    "list of tokens": (
        model(vocab=["a"]),
        "model.vocab: expected an object of tokens and ids, found a list of 1" + AGAIN,
    ),
    "no merges": (without("model", "merges"), "model.merges: expected a value, found none" + AGAIN),
    "token without id": (
        model(vocab={"a": None}),
        'model.vocab["a"]: expected an id from 0 to 4294967295, found null' + AGAIN,
    ),
    "id of a fraction": (
        model(vocab={"a": 1.5}),
        'model.vocab["a"]: expected an id from 0 to 4294967295, found 1.5' + AGAIN,
    ),
    "large id": (
        model(vocab={"a": 2**32}),
        'model.vocab["a"]: expected an id from 0 to 4294967295, found 4294967296' + AGAIN,
    ),
    "merge of one": (
        model(merges=[["a", "b"], ["a"]]),
        'model.merges[1]: expected two tokens, as "a b" or as ["a", "b"] throughout, found a list of 1' + AGAIN,
    ),
    "merge of three": (
        model(merges=["a b c"]),
        'model.merges[0]: expected two tokens, as "a b" or as ["a", "b"] throughout, found "a b c"' + AGAIN,
    ),
    "merges of two forms": (
        model(merges=[["a", "b"], "a b"]),
        'model.merges[1]: expected two tokens, as "a b" or as ["a", "b"] throughout, found "a b", after merges in lists'
        + AGAIN,
    ),
    "merge of a stranger": (
        model(merges=[["a", "<s>"]]),
        'model.merges[0]: expected tokens of model.vocab, found "<s>"' + AGAIN,
    ),
    "merge into a stranger": (
        model(merges=[["a", "c"]]),
        'model.merges[0]: expected tokens of model.vocab, found "ac"' + AGAIN,
    ),
    "unknown token": (
        model(unk_token="<unk>", vocab={"a": 0}, merges=[]),
        'model.unk_token: expected tokens of model.vocab, found "<unk>"' + AGAIN,
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(doors: Any, kind: str) -> None:
    edit, expected = REFUSED[kind]
    file = small()
    edit(file)
    assert refusal(doors, json.dumps(file)) == expected


def test_a_missing_unknown_token_that_no_byte_needs(doors: Any) -> None:
    """Published files name an unknown token that is missing; with all 256 bytes in the vocabulary none is needed."""
    file = small()
    file["model"]["unk_token"] = "<unk>"
    definition = json.dumps(file)
    assert CTokenizer(doors, definition).encode(["abc"]) == PythonTokenizer(definition).encode(["abc"]) == [[257, 7]]


NO_JSON: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "expected JSON, found parse error at line 1, column 1: "),
    "cut": (json.dumps(small()).encode()[:1000], "expected JSON, found parse error at line 1, column 1001: "),
    "list": (b"[]", "expected an object, found a list of 0"),
    "NaN": (b'{"version": NaN}', "expected JSON, found parse error at line 1, column 13: "),
    "huge number": (b'{"version": 1e999}', "expected JSON, found number overflow parsing '1e999'"),
    "two files": (b"{} {}", "expected JSON, found parse error at line 1, column 4: "),
    "byte order mark": (b"\xef\xbb\xbf{}", "expected JSON, found a byte order mark"),
    "NUL": (b'{"version": "1.0"}\0', "expected JSON, found a NUL byte"),
    "no UTF-8": (b'{"version": "\xff"}', "expected JSON, found parse error at line 1, column 14: "),
    "half a surrogate": (rb'{"version": "\ud800"}', "expected JSON, found parse error at line 1, column 20: "),
    "key twice": (
        b'{"version": "1.0", "version": "1.0"}',
        'expected every key once in an object, found "version" twice',
    ),
    "vocabulary twice": (
        b'{"model": {"vocab": {"a": 1}, "vocab": {"b": 2}}}',
        'expected every key once in an object, found "vocab" twice',
    ),
    "deep": (b"[" * 1_000_000, "expected nesting of at most 32 levels, found more"),
    "deep in the vocabulary": (
        b'{"model": {"vocab": {"a": [[[[',
        'model.vocab["a"]: expected an id from 0 to 4294967295, found a list',
    ),
    "deep in the merges": (
        b'{"model": {"merges": [[[[[',
        'model.merges[0]: expected two tokens, as "a b" or as ["a", "b"] throughout, found a list',
    ),
    "many values": (
        b"[" + b"0," * 1_000_000,
        "expected at most 100000 values beside vocabulary and merges, found more",
    ),
    "large": (b" " * ((64 << 20) + 1), "expected at most 67108864 bytes, found 67108865"),
}


@pytest.mark.parametrize("kind", NO_JSON)
def test_malformed_json_is_refused(doors: Any, kind: str) -> None:
    data, expected = NO_JSON[kind]
    assert refusal(doors, data).startswith(expected)


def test_token_twice(doors: Any) -> None:
    data = json.dumps(small()).replace('"abc": 257', '"abc": 257, "abc": 258')
    assert refusal(doors, data) == 'model.vocab: expected every token once, found "abc" twice' + AGAIN


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values in a file, but for decoder, padding and truncation, which encoding does not use."""
    if path[:1] in [("decoder",), ("padding",), ("truncation",)]:
        return
    if path:
        yield path
    for each in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from paths(value[each], (*path, each))


def value_at(file: Any, path: tuple[Any, ...]) -> Any:
    for each in path:
        file = file[each]
    return file


VALUES = [
    *(None, True, 0, 1, -1, 3.5, 2**32, 2**64, 1e300, "", "a", "x" * 2000, "NFC", "ByteLevel", "Regex"),
    *([], {}, [[]], ["a", "b"], {"a": 1}, {"type": "NFC"}),
]


def test_broken_values(doors: Any) -> None:
    """One value replaced, removed or added: files that C accepts, Python accepts too, with the same ids."""
    source, where = random.Random(6), list(paths(small()))
    seldom = [path for path in where if path[:2] == ("model", "vocab")]
    where = [path for path in where if path[:2] != ("model", "vocab")] + source.sample(seldom, 8)
    probes = ["abc <x>  \u00c9 e\u0301 xabc", " ", "'s 1234"]
    taken = 0
    for _ in range(1500):
        file = small()
        path = source.choice(where)
        parent, last, kind = value_at(file, path[:-1]), path[-1], source.randrange(4)
        if kind == 0:
            del parent[last]
        elif kind == 1:
            parent[last] = copy.deepcopy(source.choice(VALUES))
        elif kind == 2:
            parent[last] = copy.deepcopy(value_at(file, source.choice(where)))
        elif isinstance(parent, dict):
            parent[source.choice(["type", "x", "vocab", "id", f"{last}x"])] = copy.deepcopy(source.choice(VALUES))
        definition = json.dumps(file)
        try:
            tokenizer = CTokenizer(doors, definition)
        except RefusedError as refused:
            assert refused.status == Status.BUNDLE_ERROR
            assert refused.message.startswith("tokenizer.json: ")
            assert refused.message.endswith((AGAIN, PYTHON))
            continue
        assert tokenizer.encode(probes) == PythonTokenizer(definition).encode(probes), path
        taken += 1
    assert 200 < taken < 1200


def test_broken_bytes(doors: Any) -> None:
    """Bytes changed, removed, repeated and inserted: the result is a tokenizer, or an error with a message in UTF-8."""
    source, whole = random.Random(8), json.dumps(small(), ensure_ascii=False).encode()
    bits = [
        b"[",
        b"{",
        b'"',
        b",",
        b":",
        b"-",
        b"1e999",
        rb"\ud800",
        rb"\u0000",
        b"null",
        b"{}",
        b"\xed\xa0\x80",
        b"9" * 30,
    ]
    taken = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(source.choice([1, 1, 2, 20])):
            at = source.randrange(len(data))
            kind = source.randrange(4)
            if kind == 0:
                data[at] = source.randrange(256)
            elif kind == 1:
                del data[at : at + source.randrange(1, 30)]
            elif kind == 2:
                data[at:at] = source.choice(bits) * source.choice([1, 1, 40])
            else:
                data[at:at] = data[at : at + source.randrange(60)]
        try:
            CTokenizer(doors, bytes(data)).encode(["a red heart <x>"])
            taken += 1
        except RefusedError as refused:
            assert refused.status == Status.BUNDLE_ERROR
            assert refused.message.startswith("tokenizer.json: ")
    assert taken < 1500
