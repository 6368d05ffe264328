"""The C tokenizer gives the ids of the tokenizers package: texts of all scripts, long texts, and invalid ones."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.runtime.native.library import Status
from tests.runtime.native.tokenizer_door import CTokenizer, PythonTokenizer, RefusedError, differences
from tests.runtime.native.tokenizer_files import (
    ALPHABET,
    FLAGGED,
    FLAGGED_TEXTS,
    GPT2,
    LLAMA3,
    LOWER,
    NFC,
    SHIPPED,
    SPECIAL,
    added,
    byte_level,
    qwen2,
    small,
    split,
)
from tests.runtime.native.tokenizer_texts import texts


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def shipped() -> str:
    return SHIPPED.read_text(encoding="utf-8")


def with_flags() -> str:
    return json.dumps(qwen2(added_tokens=[*qwen2()["added_tokens"], *FLAGGED]))


def lowered_with_flags() -> str:
    steps = {"type": "Sequence", "normalizers": [NFC, {"type": "Sequence", "normalizers": [LOWER]}]}
    return json.dumps(qwen2(added_tokens=FLAGGED, normalizer=steps, pre_tokenizer=sequence(split(), byte_level(True))))


def lowered_first() -> str:
    steps = {"type": "Sequence", "normalizers": [LOWER, NFC]}
    return json.dumps(qwen2(normalizer=steps, pre_tokenizer=sequence(split(GPT2, "Removed", True), byte_level())))


def llama3() -> str:
    return json.dumps(qwen2(normalizer=None, pre_tokenizer=sequence(split(LLAMA3), byte_level())))


def whole_words() -> str:
    """ignore_merges, and both patterns one after the other."""
    file = qwen2(pre_tokenizer=sequence(split(), byte_level(use_regex=True)))
    file["model"]["ignore_merges"] = True
    return json.dumps(file)


def spaced_merges() -> str:
    """Merges as "a b", and no pattern, so that a text is a single word."""
    file = qwen2(pre_tokenizer=byte_level())
    file["model"]["merges"] = ["#version: 0.2", *(" ".join(pair) for pair in file["model"]["merges"])]
    return json.dumps(file)


def as_qwen2() -> str:
    return json.dumps(qwen2())


DEFINITIONS = [shipped, as_qwen2, with_flags, lowered_with_flags, lowered_first, llama3, whole_words, spaced_merges]


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_ids_equal_python(doors: Any, definition: Callable[[], str]) -> None:
    tokens = ["<pad>", "<eos>", *SPECIAL, *FLAGGED_TEXTS]
    assert differences(doors, definition(), list(texts(6_000, seed=7, tokens=tokens))) == []


@pytest.mark.slow
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_ids_equal_python_on_200000_texts(doors: Any, definition: Callable[[], str]) -> None:
    tokens = ["<pad>", "<eos>", *SPECIAL, *FLAGGED_TEXTS]
    assert differences(doors, definition(), list(texts(200_000, seed=8, tokens=tokens))) == []


def test_known_ids(doors: Any) -> None:
    """Written out, so that a change of both sides is noticed: ids of the shipped file, and of the small one by hand."""
    prompts = ["a red heart", "man astronaut", "It's \u0130STANBUL"]
    expected = [[270, 498, 402], [300, 843], [221, 278, 7, 83, 221, 73, 137, 230, 313, 261, 66, 409]]
    assert CTokenizer(doors, shipped()).encode(prompts) == expected
    a, b, space = ALPHABET.index("a"), ALPHABET.index("b"), ALPHABET.index("\u0120")
    ids = CTokenizer(doors, json.dumps(small())).encode(["abcab", "", "ba <x>  ab"])
    assert ids == [[257, 256, 7], [7], [b, a, space, 258, 256, 7]]


def random_definition(source: random.Random) -> tuple[str, list[str]]:
    """A file with few merges and gaps in its alphabet, ids and added tokens; and the texts of its added tokens."""
    atoms = [
        "a",
        "b",
        "A",
        "\u00e9",
        "e\u0301",
        " ",
        "  ",
        "\n",
        "ab",
        "<x>",
        "<",
        "'s",
        "\u00a0",
        "1",
        "\u0130",
        "\u017f",
    ]
    alphabet = [c for c in ALPHABET if source.random() < source.choice([1, 1, 0.9, 0.5])]
    tokens, merges = [*alphabet, "<unk>"], []
    for _ in range(source.randrange(60)):
        left, right = (source.choice(tokens[:-1] if tokens[-1] == "<unk>" else tokens) for _ in range(2))
        if left != "<unk>" and right != "<unk>":
            tokens.append(left + right)
            merges.append([left, right])
    if source.random() < 0.3:
        tokens += [f"<0x{byte:02X}>" for byte in range(256) if source.random() < source.choice([1, 0.9])]
    tokens = list(dict.fromkeys(tokens))
    ids = range(len(tokens))
    if source.random() < 0.3:  # gaps, and ids that two tokens share
        ids = [source.randrange(3 * len(tokens)) for _ in tokens]
    model = {
        "type": "BPE",
        "unk_token": source.choice([None, "<unk>"]),
        "fuse_unk": source.random() < 0.5,
        "byte_fallback": source.random() < 0.5,
        "ignore_merges": source.random() < 0.3,
        "vocab": dict(zip(tokens, ids, strict=True)),
        "merges": merges,
    }
    contents = {"".join(source.choices(atoms, k=source.randrange(3))) for _ in range(source.randrange(6))}
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    file = small(
        model=model,
        added_tokens=[added(c, **{flag: source.random() < 0.4 for flag in flags}) for c in sorted(contents)],
        normalizer=source.choice([None, NFC, LOWER, {"type": "Sequence", "normalizers": [LOWER, NFC]}]),
        pre_tokenizer=source.choice(
            [
                byte_level(source.random() < 0.5, source.random() < 0.5),
                sequence(split(), byte_level(source.random() < 0.5, source.random() < 0.5)),
                sequence(split(), split(GPT2, "Removed", True), byte_level(source.random() < 0.5)),
            ]
        ),
    )
    return json.dumps(file), [*atoms, *sorted(contents)]


@pytest.mark.filterwarnings("ignore")
def test_random_definitions(doors: Any) -> None:
    """Unknown bytes, byte fallbacks, ids out of order, added tokens whose spaces overlap."""
    source = random.Random(5)
    compared = 0
    for _ in range(150):
        definition, pieces = random_definition(source)
        probes = ["".join(source.choices(pieces, k=source.randrange(12))) for _ in range(20)]
        try:
            tokenizer = CTokenizer(doors, definition)
        except RefusedError as refused:  # which of the two tokens Python uses depends on the run
            assert "expected every token once, as it is normalised" in refused.message
            continue
        python = PythonTokenizer(definition)
        for probe in probes:
            try:
                ids = tokenizer.encode([probe])
            except RefusedError as refused:
                assert "expected spaces that one added token takes" in refused.message
                with pytest.raises(BaseException, match="AddedVocabulary bad split"):
                    python.encode([probe])
                continue
            assert ids == python.encode([probe]), (definition, ascii(probe))
            compared += 1
    assert compared > 2900


LONG: dict[str, Callable[[int], str]] = {
    "one letter": lambda n: "a" * n,
    "letters": lambda n: "abcde" * (n // 5),
    "ideographs": lambda n: "\u6f22" * (n // 3),
    "spaces": lambda n: " " * n + "x",
    "lines": lambda n: "\r " * (n // 2),
    "marks": lambda n: "\u0301\u0327" * (n // 4),
    "marks in the wrong order": lambda n: "\u0301" * (n // 4) + "\u0327" * (n // 4),
    "digits": lambda n: "1" * n,
    "apostrophes": lambda n: "'" * n,
    "syllables": lambda n: "\u1112\u1161\u11ab" * (n // 9),
    "tokens": lambda n: "<|im_start|>" * (n // 12),
    "beginnings of tokens": lambda n: "<|im_star" * (n // 9),
    "tokens that take spaces": lambda n: " " * (n // 2) + "<lr>" * (n // 8) + " " * (n // 2),
}


@pytest.mark.parametrize("kind", LONG)
def test_long_texts(doors: Any, kind: str) -> None:
    """10 kB give Python's ids, and 400 kB take a few tenths of a second, where quadratic time would be minutes."""
    definition = json.dumps(qwen2(added_tokens=[*qwen2()["added_tokens"], *FLAGGED[:7]]))
    assert differences(doors, definition, [LONG[kind](10_000)]) == []
    tokenizer = CTokenizer(doors, definition)
    start = time.monotonic()
    tokenizer.encode([LONG[kind](400_000)])
    assert time.monotonic() - start < 10


def test_runs_of_spaces_around_many_added_tokens(doors: Any) -> None:
    """The token is two spaces and takes the spaces after it; if each scanned the rest, time would be quadratic."""
    tokenizer = CTokenizer(doors, with_flags())
    start = time.monotonic()
    assert tokenizer.encode([" " * 400_000]) == [[tokenizer.token_id("  ")] * 200_000]
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (b"\xff", 0),
        (b"a heart \x80", 8),
        (b"ab\xc3", 2),
        (b"\xe2\x82", 0),
        (b"\xc0\xaf", 0),
        (b"\xe0\x80\xaf", 0),
        (b"x\xed\xa0\x80", 1),
        (b"\xf4\x90\x80\x80", 0),
        (b"\xf8\x88\x80\x80\x80", 0),
        ("\ud83d".encode("utf-16", "surrogatepass"), 0),
    ],
)
def test_invalid_utf8_is_refused(doors: Any, text: bytes, at: int) -> None:
    with pytest.raises(RefusedError) as refused:
        CTokenizer(doors, json.dumps(small())).encode([text])
    assert refused.value.status == Status.INPUT_ERROR
    assert refused.value.message == (
        f"prompt: expected UTF-8, found none at byte {at}; encode the text as UTF-8, without lone surrogates"
    )


def test_random_bytes(doors: Any) -> None:
    """Bytes that Python decodes are accepted, all others are refused."""
    source, tokenizer = random.Random(3), CTokenizer(doors, json.dumps(small()))
    taken = 0
    for _ in range(4000):
        text = bytes(source.choice([0x41, 0x80, 0xBF, 0xC2, 0xE0, 0xA0, 0xED, 0xF0, 0x90, 0xF4]) for _ in range(4))
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            with pytest.raises(RefusedError, match=r"^prompt: expected UTF-8"):
                tokenizer.encode([text])
        else:
            tokenizer.encode([text])
            taken += 1
    assert 50 < taken < 2000


def test_longest_text(doors: Any) -> None:
    tokenizer = CTokenizer(doors, json.dumps(small(normalizer=None)))
    assert len(tokenizer.encode(["z" * (1 << 20)])[0]) == (1 << 20) + 1
    with pytest.raises(RefusedError) as refused:
        tokenizer.encode(["z" * ((1 << 20) + 1)])
    assert refused.value.status == Status.INPUT_ERROR
    assert refused.value.message == "prompt: expected at most 1048576 bytes, found 1048577; use a shorter prompt"


@pytest.mark.parametrize("definition", [shipped, with_flags])
def test_token_ids_equal_python(doors: Any, definition: Callable[[], str]) -> None:
    file = json.loads(definition())
    tokens = [*file["model"]["vocab"], *(token["content"] for token in file["added_tokens"]), "", "no such token", "<"]
    in_c, in_python = CTokenizer(doors, definition()), PythonTokenizer(definition())
    assert [in_c.token_id(token) for token in tokens] == [in_python.token_id(token) for token in tokens]


def test_threads_share_a_tokenizer(doors: Any) -> None:
    tokenizer, probes = CTokenizer(doors, as_qwen2()), list(texts(2000, seed=9))
    alone = tokenizer.encode(probes)
    with ThreadPoolExecutor(4) as pool:  # ctypes releases the GIL during a call
        assert list(pool.map(tokenizer.encode, [probes] * 8)) == [alone] * 8
