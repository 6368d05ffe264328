"""Properties of the splits, by the real rule on invented emoji."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from hart_edge.data.names import Emoji, captions, read_emoji
from hart_edge.data.splits import (
    LEFT,
    PEOPLE,
    TEST_COLOURS,
    TEST_TONES,
    Split,
    combinations,
    fraction,
    held_out_combinations,
    split,
    validation_style,
)
from tests.data.made_up_emoji import GESTURES, ROLES, THINGS, emoji_data

STYLES = ("3d", "flat", "noto")
Key = tuple[str, str]


@pytest.fixture(scope="module")
def emoji() -> dict[str, Emoji]:
    return read_emoji(emoji_data())


@pytest.fixture(scope="module")
def drawn(emoji: dict[str, Emoji]) -> list[Key]:
    """Every emoji in every style, except that flags, and one tone of one role, have a single style."""
    only = {code for code, each in emoji.items() if each.group == 9} | {"1f469-1f3fd-200d-1f603"}
    return [(code, style) for code in emoji for style in (STYLES[:1] if code in only else STYLES)]


@pytest.fixture(scope="module")
def splits(emoji: dict[str, Emoji], drawn: list[Key]) -> dict[Key, Split]:
    return split(emoji, drawn)


def words(text: str) -> set[str]:
    """The words of a text; "medium-dark" is one."""
    return set(re.findall(r"[\w-]+", text.lower()))


def of(splits: dict[Key, Split], which: Split) -> list[Key]:
    return [key for key, value in splits.items() if value == which]


def test_every_drawing_has_a_split_whatever_the_order(
    emoji: dict[str, Emoji], drawn: list[Key], splits: dict[Key, Split]
) -> None:
    assert splits.keys() == set(drawn)
    assert split(dict(reversed(emoji.items())), drawn[::-1]) == splits
    sizes = {which: len(of(splits, which)) for which in Split}
    assert sum(sizes.values()) == len(drawn) and min(sizes.values()) >= 20
    assert sizes[Split.TRAIN] > 0.8 * len(drawn)


def test_a_held_out_combination_is_in_no_other_split(emoji: dict[str, Emoji], splits: dict[Key, Split]) -> None:
    tested = {code for code, _ in of(splits, Split.TEST)}
    elsewhere = {code for code, _ in of(splits, Split.TRAIN) + of(splits, Split.VALIDATION)}
    assert tested & elsewhere == set()
    held = held_out_combinations(emoji.values())
    assert all(combinations(emoji[code]) & held for code in tested)
    assert all(not combinations(emoji[code]) & held for code in elsewhere)


def test_every_part_of_a_held_out_combination_is_in_train(emoji: dict[str, Emoji], splits: dict[Key, Split]) -> None:
    partners = defaultdict(set)
    for code, _ in of(splits, Split.TRAIN):
        for one, other in combinations(emoji[code]):
            partners[one].add(other)
            partners[other].add(one)
    held = held_out_combinations(emoji.values())
    assert {part for pair in held for part in pair} <= partners.keys()
    assert all(len(partners[part]) >= LEFT for pair in held for part in pair)


def test_no_caption_of_train_names_a_held_out_combination(emoji: dict[str, Emoji], splits: dict[Key, Split]) -> None:
    trained = [words(caption) for key in of(splits, Split.TRAIN) for caption in captions(emoji[key[0]], key[1])]
    for code, _ in of(splits, Split.TEST):
        asked = words(emoji[code].name) - PEOPLE
        assert not [said for said in trained if asked <= said], emoji[code].name


def test_how_many_combinations_are_held_out(emoji: dict[str, Emoji]) -> None:
    held = held_out_combinations(emoji.values())
    colours = {pair for pair in held if pair[0] in {each.colour for each in emoji.values()}}
    # All roles, and the gestures whose names are not part of another family's name.
    families = len(ROLES) + len(GESTURES) - 1
    assert len(colours) == int(TEST_COLOURS * 18) == 4
    assert len(held - colours) == int(TEST_TONES * 5 * families) == 5


def test_families_without_held_out_combinations(emoji: dict[str, Emoji]) -> None:
    """Pairs of people show only part of a combination; "mountain biking: dark skin tone" contains that of "biking"."""
    held = {family for _, family in held_out_combinations(emoji.values())}
    by_name = {each.name: each.family for each in emoji.values()}
    assert by_name["handshake"] == "1faf1-1faf2" and not held & {by_name["handshake"], by_name["biking"]}


def test_a_drawing_of_validation_is_in_train_in_other_styles_only(
    emoji: dict[str, Emoji], splits: dict[Key, Split]
) -> None:
    train, validation = of(splits, Split.TRAIN), of(splits, Split.VALIDATION)
    families = {(emoji[code].family, style) for code, style in validation}
    assert not families & {(emoji[code].family, style) for code, style in train}
    trained = {code for code, _ in train}
    assert {code for code, _ in validation} <= trained
    assert len({family for family, _ in families}) == len(families)  # at most one style of a family
    assert all(emoji[code].group != 9 for code, _ in validation)  # drawn in one style


def test_every_word_of_a_prompt_is_in_train(emoji: dict[str, Emoji], splits: dict[Key, Split]) -> None:
    known = {word for code, style in of(splits, Split.TRAIN) for word in words(captions(emoji[code], style)[0])}
    asked = of(splits, Split.VALIDATION) + of(splits, Split.TEST)
    assert {word for code, style in asked for word in words(captions(emoji[code], style)[0])} <= known


def test_the_only_style_of_an_emoji_is_not_held_out_for_validation() -> None:
    chosen = next(name for name in (f"family {i}" for i in range(99)) if validation_style(name, {"a": {"3d", "flat"}}))
    assert validation_style(chosen, {"a": {"3d", "flat"}, "b": {"3d"}}) == "flat"
    assert validation_style(chosen, {"a": {"3d", "flat"}, "b": {"3d"}, "c": {"flat"}}) == ""


def test_the_share_of_validation() -> None:
    chosen = [validation_style(f"family {i}", {"a": set(STYLES)}) for i in range(4000)]
    counts = {style: chosen.count(style) for style in STYLES}
    assert 440 < sum(counts.values()) < 560  # an eighth: 500 with a standard deviation of 21
    assert min(counts.values()) > 120


def test_the_numbers_never_change() -> None:
    """Another hash would make other splits, so that figures of earlier models could not be compared."""
    assert fraction("validation/1f600") == pytest.approx(0.4898614548885938, abs=1e-12)
    assert min(map(fraction, THINGS)) >= 0 and max(map(fraction, THINGS)) < 1
