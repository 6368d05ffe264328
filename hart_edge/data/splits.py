"""Which pictures are for training, for validation, for the compositional test: a fixed rule, without random numbers.

In: the emoji and the styles each is drawn in. Out: the split of every (emoji, style). Choices follow the SHA-256 of
names, so the same drawings are always split the same way.

test: combinations (skin tone x what has it, colour x shape) that occur in train in no style, of parts that all occur
there. What has a skin tone is a family: "astronaut" stands for man, woman and person.
validation: families in one of their styles, with all skin tones; train has them in the other styles. So no drawing of
validation is in train, and yet every subject and every style of a validation prompt has been seen.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum

from hart_edge.data.names import Emoji, words

TEST_TONES = 1 / 12  # of all (skin tone, family) combinations
TEST_COLOURS = 1 / 4  # of all (colour, shape) combinations, which are few
VALIDATION = 1 / 8  # of the families that are drawn in several styles, one style each
LEFT = 2  # a part of a combination for test occurs in at least so many combinations of train

PEOPLE = frozenset(["man", "men", "woman", "women", "person", "people"])

Combination = tuple[str, str]


class Split(StrEnum):
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def split(emoji: Mapping[str, Emoji], drawn: Collection[tuple[str, str]]) -> dict[tuple[str, str], Split]:
    """The split of every (code, style) in `drawn`; emoji: by code."""
    codes = {code for code, _ in drawn}
    held_out = held_out_combinations(emoji[code] for code in codes)
    tested = {code for code in codes if combinations(emoji[code]) & held_out}
    found = {(code, style): Split.TEST if code in tested else Split.TRAIN for code, style in drawn}
    styles: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))  # family -> code -> styles
    for code, style in drawn:
        if code not in tested:
            styles[emoji[code].family][code].add(style)
    for family, by_code in styles.items():
        kept = validation_style(family, by_code)
        found |= {(code, kept): Split.VALIDATION for code, drawn_in in by_code.items() if kept in drawn_in}
    return found


def combinations(emoji: Emoji) -> frozenset[Combination]:
    """The combinations that an emoji shows: (tone, family), (colour, shape)."""
    found = {(tone, emoji.family) for tone in emoji.tones}
    if emoji.colour and emoji.shape:
        found.add((emoji.colour, emoji.shape))
    return frozenset(found)


def held_out_combinations(emoji: Iterable[Emoji]) -> frozenset[Combination]:
    """The combinations for test."""
    emoji = list(emoji)
    toned = [each for each in emoji if each.tones]
    without = _families_without_part(toned)
    tones = {(tone, each.family) for each in toned for tone in each.tones if each.family not in without}
    colours = {(each.colour, each.shape) for each in emoji if each.colour and each.shape}
    return frozenset(_choose(tones, TEST_TONES) | _choose(colours, TEST_COLOURS))


def _families_without_part(toned: Collection[Emoji]) -> set[str]:
    """The families whose combinations cannot be held out of train.

    Pictures of two people show half a combination each. And a caption of another family may say the same and more:
    "man biking: dark skin tone" is in "man mountain biking: dark skin tone".
    """
    found = {each.family for each in toned if len(each.tones) > 1}
    said = {(each.family, frozenset(words(each.name, *each.tags))) for each in toned}
    for each in toned:
        subject = words(each.name.partition(":")[0]) - PEOPLE
        if any(family != each.family and subject <= more for family, more in said):
            found.add(each.family)
    return found


def _choose(combinations: set[Combination], share: float) -> set[Combination]:
    """The first `share` of the combinations in the order of their hashes that leave LEFT others to both their parts."""
    left = Counter(part for pair in combinations for part in pair)
    chosen: set[Combination] = set()
    for pair in sorted(combinations, key=lambda pair: fraction("/".join(pair))):
        if len(chosen) + 1 > share * len(combinations):
            break
        if all(left[part] > LEFT for part in pair):
            chosen.add(pair)
            left.subtract(pair)
    return chosen


def validation_style(family: str, styles: Mapping[str, set[str]]) -> str:
    """The style of a family that is kept for validation; "" for most families. styles: of each of its emoji, by code.

    Only a style whose every emoji is also drawn in another one, so that train has seen the subject.
    """
    if fraction(f"validation/{family}") >= VALIDATION:
        return ""
    every = sorted(set().union(*styles.values()))
    possible = [style for style in every if all(each != {style} for each in styles.values())]
    return min(possible, key=lambda style: fraction(f"validation/{family}/{style}"), default="")


def fraction(name: str) -> float:
    """A number from 0 up to 1 that belongs to the name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48
