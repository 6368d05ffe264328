"""Seeded texts of every script, to compare the C tokenizer with the tokenizers package."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

# First and last character of blocks of every kind of script: with and without case, digits, marks, unassigned ones.
BLOCKS = [
    (0x20, 0x7E), (0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x2FF), (0x370, 0x3FF), (0x400, 0x52F),
    (0x531, 0x58F), (0x591, 0x5F4), (0x600, 0x6FF), (0x700, 0x74F), (0x7C0, 0x7FF), (0x8A0, 0x8FF), (0x900, 0x97F),
    (0x980, 0x9FE), (0xA00, 0xA76), (0xB82, 0xBFA), (0xC00, 0xC7F), (0xD00, 0xD7F), (0xD81, 0xDF4), (0xE01, 0xE5B),
    (0xE81, 0xEDF), (0xF00, 0xFDA), (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x137C),
    (0x13A0, 0x13FD), (0x1780, 0x17F9), (0x1800, 0x18AA), (0x1AB0, 0x1AFF), (0x1C80, 0x1CBF), (0x1D00, 0x1DFF),
    (0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x218B), (0x2190, 0x23FF), (0x2460, 0x24FF),
    (0x2C00, 0x2C7F), (0x2DE0, 0x2E5D), (0x3000, 0x30FF), (0x3130, 0x318F), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xA640, 0xA69F), (0xA720, 0xA7FF), (0xAB70, 0xABBF), (0xAC00, 0xD7A3), (0xD7B0, 0xD7FB), (0xF900, 0xFAFF),
    (0xFB00, 0xFDFF), (0xFE00, 0xFFFD), (0x10400, 0x1044F), (0x10570, 0x105FF), (0x10A00, 0x10A48), (0x10D00, 0x10D8F),
    (0x10EC0, 0x10EFF), (0x11000, 0x1107F), (0x11080, 0x110C2), (0x11100, 0x11147), (0x11380, 0x113E2),
    (0x114B0, 0x114D9), (0x11930, 0x11959), (0x16100, 0x16139), (0x16D40, 0x16D79), (0x16EA0, 0x16ED3),
    (0x1D100, 0x1D1FF), (0x1D400, 0x1D7FF), (0x1E900, 0x1E95F), (0x1EE00, 0x1EEF1), (0x1F100, 0x1F2FF),
    (0x20000, 0x2A6DF), (0x2F800, 0x2FA1D), (0xE0000, 0xE01EF), (0x10FF00, 0x10FFFF),
]  # fmt: skip
MARKS = [
    *range(0x300, 0x370), 0x591, 0x5B0, 0x64B, 0x93C, 0x94D, 0x9BE, 0x1161, 0x11A8, 0x302A, 0x3099, 0xFE0F, 0x1D165,
]  # fmt: skip
BASES = [
    *map(ord, "aeiouncsAEIOUNCSK"), 0x3B1, 0x3A9, 0x415, 0x9C7, 0x1100, 0xAC00, 0x304B, 0x1D158, 0x212A, 0x1E9B,
]  # fmt: skip
# Emoji with a selector, joiners, a skin tone, of two letters (a flag), a keycap, of tags; a recent one, a plain one.
EMOJI = [
    "\u2764\ufe0f", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44b\U0001f3fd", "\U0001f1e9\U0001f1ea",
    "1\ufe0f\u20e3", "\U0001f3f4\U000e0067\U000e007f", "\U0001fae8", "\u263a",
]  # fmt: skip
SPACES = [
    " ", " ", "  ", "   ", "\n", "\r\n", "\n\n ", "\t", " \n", "\u00a0", "\u3000", "\u2028", "\x85", "\x0b", "\x1c",
    "\u200b",
]  # fmt: skip
# Texts on which patterns, lower case and added tokens depend: contractions, also with the long s; numbers; characters
# whose lower case is special; words of the shipped model.
HINGES = [
    "'s", "'S", "'\u017f", "'t", "'re", "'RE", "'ve", "'m", "'ll", "'LL", "'d", "'", "''s", "I'm", "don't", "\u2019s",
    "'K", "'\u212a", "123", "1234567", "3.14", "\u0663\u0664", "\u00bd", "\u2167", "...", "!?", "/\n", ".\r\n\n", "#$%",
    "\u0130", "\u03a3", "\u03a3\u03a3 ", "\u01c5", "\u1e9e", "\u1f80", "\ufb03", "\x00", "\x7f", "\ufffd", "\ufeff",
    "_", "a red heart", "the cat", " smiling face",
]  # fmt: skip


def texts(count: int, seed: int, tokens: Sequence[str] = ()) -> Iterator[str]:
    """`count` texts of 0 to about 60 characters; some contain one of `tokens`, whole or in part."""
    source = random.Random(seed)
    for _ in range(count):
        yield "".join(_piece(source, tokens) for _ in range(source.randrange(8)))


def _piece(source: random.Random, tokens: Sequence[str]) -> str:
    kind = source.randrange(16)
    if kind < 6:
        first, last = source.choice(BLOCKS)
        return "".join(chr(source.randint(first, last)) for _ in range(source.randrange(1, 9)))
    if kind < 8:
        return chr(source.choice(BASES)) + "".join(chr(source.choice(MARKS)) for _ in range(source.randrange(5)))
    if kind < 9:
        return source.choice(EMOJI)
    if kind < 12:
        return source.choice(SPACES)
    if kind < 14:
        return source.choice(HINGES)
    if kind < 15 and tokens:
        token = source.choice(tokens)
        return token if source.random() < 0.7 else token[: source.randrange(len(token) + 1)]
    c = source.randrange(0x110000 - 0x800)
    return chr(c if c < 0xD800 else c + 0x800)
