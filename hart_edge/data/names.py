"""What an emoji shows, in words: its name and tags from emojibase, and the parts that its name is put together from.

In: emojibase's data.json. Out: Emoji records, and the captions of a picture. The parts (tones, family, colour, shape)
are what splits.py tells combinations by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

TONES = {
    "1f3fb": "light",
    "1f3fc": "medium-light",
    "1f3fd": "medium",
    "1f3fe": "medium-dark",
    "1f3ff": "dark",
}
# Light blue counts as blue: a combination that holds the word "blue" is one.
COLOURS = frozenset(["red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white", "pink", "grey"])
SHAPES = frozenset(["heart", "circle", "square", "diamond", "triangle"])
COMPONENTS = 2  # emojibase's group of skin tones and hair alone; regional indicators have no group
FLAGS = 9
NO_ARTICLE = {FLAGS, 8}  # groups of flags and symbols: "a Japan", "a Libra"
TAGS = 3  # in one caption
TAG = re.compile(r"[a-z][a-z '-]+")  # words, no ":)" or "JP"
WORD = re.compile(r"[a-z0-9]+")
FACING = "facing right"

# Woman, man and person stand for one another, and so do the directions: drawings of them differ in little else.
PERSON = {"1f468": "person", "1f469": "person", "1f9d1": "person"}
# Two people (or hands) have one code where their skin tones are alike, and a longer one where they are not.
PAIRS = {
    "1f46b": "person-1f91d-person",  # holding hands
    "1f46c": "person-1f91d-person",
    "1f46d": "person-1f91d-person",
    "1f48f": "person-2764-1f48b-person",  # kiss
    "1f491": "person-2764-person",  # couple with heart
    "1f46f": "person-1f430-person",  # with bunny ears
    "1f93c": "person-1faef-person",  # wrestling
    "1f91d": "1faf1-1faf2",  # handshake
}
DROPPED = {"2640", "2642", "27a1"}  # female sign, male sign, facing right
JOINER = "200d"


@dataclass(frozen=True)
class Emoji:
    """One emoji. code: hexadecimal code points joined by "-", lower case, without variation selectors.

    family: the code without skin tone, gender and direction; tones: skin tones in the order of the code, () where
    none is given; colour and shape: the words of the name that are such, "" where there is none.
    """

    code: str
    name: str
    tags: tuple[str, ...]
    group: int
    family: str
    tones: tuple[str, ...]
    colour: str
    shape: str


def plain_code(code: str) -> str:
    """A code as Emoji has it: 2764-FE0F -> 2764, 0023-fe0f-20e3 -> 23-20e3."""
    points = code.lower().replace("_", "-").split("-")
    return "-".join(point.lstrip("0") for point in points if point != "fe0f")


def toneless(code: str) -> str:
    """The code of the same emoji without its skin tones: 1f468-1f3fd-200d-1f680 -> 1f468-200d-1f680."""
    return "-".join(point for point in code.split("-") if point not in TONES)


def read_emoji(data: Iterable[dict[str, Any]]) -> dict[str, Emoji]:
    """Every emoji of emojibase's data.json by its code, in its order; components and single letters are left out."""
    found = {}
    for entry in data:
        if entry.get("group") in (None, COMPONENTS):
            continue
        for each in (entry, *entry.get("skins", ())):
            emoji = make_emoji(each["hexcode"], each["label"], entry.get("tags", ()), entry["group"])
            found[emoji.code] = emoji
    return found


def make_emoji(code: str, name: str, tags: Iterable[str] = (), group: int = 0) -> Emoji:
    code = plain_code(code)
    points = code.split("-")
    kept = [PERSON.get(point, point) for point in points if point not in DROPPED and point not in TONES]
    family = "-".join(point for point in kept if point != JOINER) or code  # or: the female sign is an emoji too
    in_order = WORD.findall(name.lower())
    return Emoji(
        code=code,
        name=name,
        tags=tuple(tags),
        group=group,
        family=PAIRS.get(family, family),
        tones=tuple(TONES[point] for point in points if point in TONES),
        colour=next((word for word in in_order if word in COLOURS), ""),
        shape=next((word for word in in_order if word in SHAPES), ""),
    )


def words(*texts: str) -> set[str]:
    """The words of texts in lower case, in no order."""
    return set(WORD.findall(" ".join(texts).lower()))


def captions(emoji: Emoji, style: str, *, unstyled: bool = True) -> tuple[str, ...]:
    """The captions of the emoji's picture in a style; the first is the canonical one, and all of them are true.

    "man astronaut: dark skin tone, flat", the same as a phrase ("a man astronaut with dark skin tone, flat"), and with
    the first tags that say something new. unstyled: name and phrase without the style too, which of several pictures
    of an emoji only one should have, or a prompt without a style would mean any of them.
    """
    phrase = as_phrase(emoji)
    said = [f"{emoji.name}, {style}", emoji.name, f"{phrase}, {style}", phrase]
    if not unstyled:
        said = said[::2]  # those that name the style
    known = words(emoji.name) | COLOURS | SHAPES  # the "blue" of a sad face is not what is drawn
    tags = [tag for tag in emoji.tags if TAG.fullmatch(tag) and not known & words(tag)]
    if tags:
        said.append(f"{emoji.name}, {', '.join(tags[:TAGS])}, {style}")
    return tuple(dict.fromkeys(said))


def as_phrase(emoji: Emoji) -> str:
    """The name the way a sentence has it: "a red heart", "a man with dark skin tone and beard", "flag of Japan".

    The name itself where no sentence is certain to be right: "keycap: 1", "kiss: woman, man".
    """
    subject, _, rest = emoji.name.partition(": ")
    parts = rest.split(", ") if rest else []
    if emoji.group == FLAGS:
        return f"{subject} of {rest}" if rest else subject
    certain = all(part == FACING or part.endswith(("skin tone", "hair", "beard")) for part in parts)
    if len(emoji.tones) > 1 or not certain:
        return emoji.name
    traits = " and ".join(part for part in parts if part != FACING)
    joint = " and " if " with " in subject else " with "
    phrase = subject + (joint + traits if traits else "") + (f", {FACING}" if FACING in parts else "")
    plural = subject.endswith("s") and not subject.endswith("ss")
    uncertain = emoji.group in NO_ARTICLE and not emoji.shape
    if uncertain or plural or " and " in subject:
        return phrase
    return f"{'an' if subject[0].lower() in 'aeiou' else 'a'} {phrase}"
