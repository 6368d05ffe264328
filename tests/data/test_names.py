"""Names, families and captions of emoji."""

from __future__ import annotations

import pytest

from hart_edge.data.names import captions, make_emoji, plain_code, read_emoji, toneless


@pytest.mark.parametrize(
    ("code", "plain"),
    [
        ("2764-FE0F", "2764"),
        ("0023-fe0f-20e3", "23-20e3"),
        ("1F468-1F3FD-200D-1F680", "1f468-1f3fd-200d-1f680"),
        ("1f3f4-e0067_e0062", "1f3f4-e0067-e0062"),
    ],
)
def test_codes(code: str, plain: str) -> None:
    assert plain_code(code) == plain


@pytest.mark.parametrize(
    ("code", "family", "tones"),
    [
        ("1F468-1F3FD-200D-1F680", "person-1f680", ("medium",)),  # man astronaut
        ("1F9D1-200D-1F680", "person-1f680", ()),  # astronaut
        ("1F3C3-1F3FF-200D-2640-FE0F-200D-27A1-FE0F", "1f3c3", ("dark",)),  # woman running: facing right
        ("1F46B-1F3FB", "person-1f91d-person", ("light",)),  # woman and man holding hands
        ("1F468-1F3FB-200D-1F91D-200D-1F468-1F3FE", "person-1f91d-person", ("light", "medium-dark")),
        ("2640-FE0F", "2640", ()),  # female sign
        ("2764-FE0F", "2764", ()),
    ],
)
def test_families_and_tones(code: str, family: str, tones: tuple[str, ...]) -> None:
    emoji = make_emoji(code, "any")
    assert (emoji.family, emoji.tones) == (family, tones)


def test_codes_without_skin_tones() -> None:
    codes = ("1f468-1f3fd-200d-1f680", "1f44d-1f3ff", "1f44d", "1f468-1f3fb-200d-1f91d-200d-1f468-1f3fe")
    expected = ["1f468-200d-1f680", "1f44d", "1f44d", "1f468-200d-1f91d-200d-1f468"]
    assert [toneless(code) for code in codes] == expected


@pytest.mark.parametrize(
    ("name", "colour", "shape"),
    [
        ("red heart", "red", "heart"),
        ("light blue heart", "blue", "heart"),
        ("large blue diamond", "blue", "diamond"),
        ("heart with arrow", "", "heart"),
        ("green book", "green", ""),
        ("tired face", "", ""),
    ],
)
def test_colours_and_shapes(name: str, colour: str, shape: str) -> None:
    emoji = make_emoji("1f600", name)
    assert (emoji.colour, emoji.shape) == (colour, shape)


@pytest.mark.parametrize(
    ("code", "name", "tags", "group", "expected"),
    [
        (
            "2764",
            "red heart",
            ("emotion", "heart", "love", "red"),
            0,
            (
                "red heart, flat",
                "red heart",
                "a red heart, flat",
                "a red heart",
                "red heart, emotion, love, flat",
            ),
        ),
        (
            "1F9D4-1F3FF-200D-27A1",
            "person: dark skin tone, beard, facing right",
            (),
            1,
            (
                "person: dark skin tone, beard, facing right, flat",
                "person: dark skin tone, beard, facing right",
                "a person with dark skin tone and beard, facing right, flat",
                "a person with dark skin tone and beard, facing right",
            ),
        ),
        (
            "1F469-1F3FE-200D-1F9AF",
            "woman with white cane: medium-dark skin tone",
            (),
            1,
            (
                "woman with white cane: medium-dark skin tone, flat",
                "woman with white cane: medium-dark skin tone",
                "a woman with white cane and medium-dark skin tone, flat",
                "a woman with white cane and medium-dark skin tone",
            ),
        ),
        (
            "1F1EF-1F1F5",
            "flag: Japan",
            ("JP", "flag"),
            9,
            ("flag: Japan, flat", "flag: Japan", "flag of Japan, flat", "flag of Japan"),
        ),
        # The colour of a tag is not that of the drawing, and punctuation is not a word.
        (
            "1F630",
            "anxious face",
            ("blue", ":(", "cold", "eek", "nervous", "scared"),
            0,
            (
                "anxious face, flat",
                "anxious face",
                "an anxious face, flat",
                "an anxious face",
                "anxious face, cold, eek, nervous, flat",
            ),
        ),
        # No caption in a sentence is certain to be right.
        ("31-20E3", "keycap: 1", (), 8, ("keycap: 1, flat", "keycap: 1")),
        ("1F453", "glasses", (), 7, ("glasses, flat", "glasses")),
        ("264E", "Libra", (), 8, ("Libra, flat", "Libra")),
        ("1F535", "blue circle", (), 8, ("blue circle, flat", "blue circle", "a blue circle, flat", "a blue circle")),
    ],
)
def test_captions(code: str, name: str, tags: tuple[str, ...], group: int, expected: tuple[str, ...]) -> None:
    assert captions(make_emoji(code, name, tags, group), "flat") == expected


def test_captions_that_all_name_the_style() -> None:
    heart = make_emoji("2764", "red heart", ("emotion", "love"), 0)
    expected = ("red heart, noto", "a red heart, noto", "red heart, emotion, love, noto")
    assert captions(heart, "noto", unstyled=False) == expected
    assert captions(make_emoji("31-20E3", "keycap: 1", (), 8), "noto", unstyled=False) == ("keycap: 1, noto",)


def test_read_emoji_takes_skin_tones_and_leaves_out_components() -> None:
    data = [
        {
            "hexcode": "1F44D",
            "label": "thumbs up",
            "group": 1,
            "tags": ["good"],
            "skins": [{"hexcode": "1F44D-1F3FF", "label": "thumbs up: dark skin tone", "group": 1}],
        },
        {"hexcode": "1F3FB", "label": "light skin tone", "group": 2},
        {"hexcode": "1F1E6", "label": "regional indicator A"},
    ]
    found = read_emoji(data)
    assert {code: (each.name, each.tags, each.tones) for code, each in found.items()} == {
        "1f44d": ("thumbs up", ("good",), ()),
        "1f44d-1f3ff": ("thumbs up: dark skin tone", ("good",), ("dark",)),
    }
