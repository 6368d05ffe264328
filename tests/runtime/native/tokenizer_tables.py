"""The tokenizers package -> runtime/native/src/text/tokenizer_tables.h: classes, NFC and lower case.

Every Unicode library has tables of some version of Unicode, and the package has three (for regular expressions, for
normalisation, for lower case). The C tokenizer must give the same ids, so the tables are measured here, code point by
code point, through the package's public functions. Takes a minute; run it again when a release of the package changes
its tables, which test_tokenizer_unicode.py finds:

    python -m tests.runtime.native.tokenizer_tables
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

HEADER = Path(__file__).parents[3] / "runtime" / "native" / "src" / "text" / "tokenizer_tables.h"
CODE_POINTS = [*range(0xD800), *range(0xE000, 0x110000)]

# The bits of a class, as tokenizer_unicode.h names them.
LETTER, NUMBER, SPACE, WORD, COMPOSES = 1, 2, 4, 8, 16

nfc, nfd = normalizers.NFC().normalize_str, normalizers.NFD().normalize_str
lower = normalizers.Lowercase().normalize_str


def matched(pattern: str) -> set[int]:
    """Code points that match a class in the package's regular expressions (Split, ByteLevel)."""
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    text = "".join(map(chr, CODE_POINTS))
    return {CODE_POINTS[i] for _, (start, end) in split.pre_tokenize_str(text) for i in range(start, end)}


def words() -> set[int]:
    r"""Code points that are \w where an added token has single_word: the engine of Whitespace, not that of Split."""
    found = set()
    for start in range(0, len(CODE_POINTS), 4096):
        probes = "".join("\na" + chr(c) for c in CODE_POINTS[start : start + 4096])
        pieces = pre_tokenizers.Whitespace().pre_tokenize_str(probes)
        found |= {ord(piece[1]) for piece, (at, end) in pieces if at % 3 == 1 and end == at + 2}
    return found


def composing() -> set[int]:
    """Code points that NFC or NFD changes, moves, or joins with a neighbour."""
    found = set()
    for c in CODE_POINTS:
        character = chr(c)
        alone = nfd(character)
        if alone != character:
            found |= {c, *map(ord, alone)}
        # Marks of the last (240) and of the first (1) combining class, on the side where c would have to move.
        elif nfd("\u0345" + character) != "\u0345" + character or nfd(character + "\u0334") != character + "\u0334":
            found.add(c)
    # Vowels and final consonants of Hangul compose by arithmetic; NFD above has found them and their syllables.
    return found


def runs(value: Callable[[int], int], fill: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """(first code point, its class) wherever the class changes. Bits of fill(c) may have any value."""
    current = 0
    for c in range(0x110000):
        free = fill(c)
        wanted = value(c) & ~free | current & free
        if wanted != current:
            yield c, wanted
            current = wanted


def cases() -> Iterator[tuple[int, int, int, int]]:
    """(first, last, step, distance): every step-th code point from first to last has its lower case `distance` on."""
    row: list[int] = []
    for c in CODE_POINTS:
        small = lower(chr(c))
        if small == chr(c) or len(small) > 1:
            continue
        distance = ord(small) - c
        if row and row[3] == distance and c - row[1] in ((row[2],) if row[0] != row[1] else (1, 2)):
            row[1], row[2] = c, c - row[1]
            continue
        if row:
            yield row[0], row[1], row[2], row[3]
        row = [c, c, 1, distance]
    yield row[0], row[1], row[2], row[3]


def rows(cells: Iterable[str]) -> Iterator[str]:
    """Cells side by side, in lines of at most 120 characters."""
    line = "   "
    for cell in cells:
        if len(line) + len(cell) + 2 > 120:
            yield line
            line = "   "
        line += f" {cell},"
    yield line


def main() -> None:
    longer = {c: lower(chr(c)) for c in CODE_POINTS if len(lower(chr(c))) > 1}
    if longer != {0x130: "i\u0307"}:
        raise SystemExit(f"expected that only U+0130 has a lower case of two code points, found {longer}")
    sets = {
        LETTER: matched(r"\p{L}"),
        NUMBER: matched(r"\p{N}"),
        SPACE: matched(r"\s"),
        WORD: words(),
        COMPOSES: composing(),
    }

    def classes(c: int) -> int:
        return sum(bit for bit, members in sets.items() if c in members)

    def free(c: int) -> int:
        # A character of Unicode 3.2 that composes with nothing never will (Unicode's stability policy), so the NFC of
        # every library leaves it as it is. Its bit may have either value, which saves runs.
        old = unicodedata.ucd_3_2_0.category(chr(c)) != "Cn"
        return COMPOSES if old and c not in sets[COMPOSES] else 0

    table = [f"{c << 8 | bits:#x}" for c, bits in runs(classes, free)]
    small = [f"{{{first:#x}, {last:#x}, {step}, {distance}}}" for first, last, step, distance in cases()]
    HEADER.write_text(
        "\n".join(
            [
                f"// Generated by tests/runtime/native/tokenizer_tables.py from tokenizers {tokenizers.__version__}.",
                "#pragma once",
                "",
                "#include <cstdint>",
                "",
                "namespace hart_edge {",
                "",
                "// clang-format off",
                "",
                "// Ascending: the first code point of a run << 8 | the bits of its class (CharacterClass).",
                "inline constexpr std::uint32_t CLASS_RUNS[] = {",
                *rows(table),
                "};",
                "",
                "// Every step-th code point from first to last: its lower case is `distance` further, U+0130 aside.",
                "struct CaseRun {",
                "    std::uint32_t first, last, step;",
                "    std::int32_t distance;",
                "};",
                "inline constexpr CaseRun CASE_RUNS[] = {",
                *rows(small),
                "};",
                "",
                "}  // namespace hart_edge",
                "",
            ]
        ),
        encoding="ascii",
    )
    print(f"{HEADER.name}: {len(table)} runs of classes, {len(small)} runs of cases")


if __name__ == "__main__":
    main()
