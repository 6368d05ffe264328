"""The page in Debian's chromium: a minute; python -m pytest -m slow tests/server/test_page.py

Needs apt-get install chromium, and pip install 'hart-edge[server-tests]'.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hart_edge
from hart_edge.runtime.picture_metadata import read_metadata
from tests.bundle.corrupt_bundles import relist
from tests.runtime.words_bundle import make_words_bundle
from tests.server.browser import CHROMIUM, browser
from tests.server.running import Server, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]
CARD = "# tiny\n\nStyles: `w7`, `w8`. A prompt ends with a comma and one of them.\n\nExamples: `w1 w2`, `w5`.\n"


@pytest.fixture(scope="module")
def styled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a card that names styles and examples."""
    folder = make_words_bundle(tmp_path_factory.mktemp("styled") / "tiny")
    (folder / "README.md").write_text(CARD)
    relist(folder, "README.md")
    return folder


@pytest.fixture(scope="module")
def shown(styled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("shown"), styled) as it:
        yield it


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


class Visit:
    """A page in a context of its own, with all that the browser said and asked for."""

    def __init__(self, chromium: Any, address: str, **view: Any) -> None:
        self.context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"], **view)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def text(self, id: str) -> str:
        return str(self.page.inner_text(f"#{id}"))

    def until(self, id: str, start: str) -> None:
        script = "([id, start]) => document.getElementById(id).textContent.startsWith(start)"
        self.page.wait_for_function(script, arg=[id, start], timeout=30_000)

    def draw(self, prompt: str, seed: int | None = None) -> None:
        self.until("facts", "tiny")
        self.page.fill("#prompt", prompt)
        if seed is not None:
            self.page.fill("#seed", str(seed))
        self.page.press("#prompt", "Enter")
        self.until("status", "Done in")
        self.page.wait_for_selector("#draw:not([hidden])")


@pytest.fixture
def visit(chromium: Any, shown: Server) -> Iterator[Visit]:
    it = Visit(chromium, shown.address)
    yield it
    assert it.said == []  # no error, and nothing that the policy for content has refused
    assert all(url.startswith((shown.address, "blob:")) for url in it.asked)
    it.context.close()


def test_a_picture_forms_and_its_scales_stay(visit: Visit) -> None:
    visit.draw("w1 w2", 5)
    assert visit.text("caption").startswith("Step 2 of 2 · 2 × 2 grid · ")
    assert visit.page.locator("#thumbs img").count() == 2
    visit.page.focus("#scale")
    visit.page.keyboard.press("ArrowLeft")
    assert visit.text("caption").startswith("Step 1 of 2 · 1 × 1 grid · ")
    assert visit.page.get_attribute("#scale", "aria-valuetext") == "1 of 2, a grid of 1 by 1"
    assert visit.page.get_attribute("#picture", "alt") == "w1 w2, step 1 of 2"
    visit.page.click("#play")
    visit.until("caption", "Step 2 of 2")


def test_styles_are_chips_of_the_card(visit: Visit, styled: Path) -> None:
    visit.until("facts", "tiny")
    assert [each.inner_text() for each in visit.page.locator("#styles label").all()] == ["any", "w7", "w8"]
    visit.page.check("input[name=style][value=w8]", force=True)
    visit.draw("w1", 3)
    assert visit.text("told").startswith("w1, w8 · seed 3 · ")


def test_examples_of_the_card_are_drawn_by_a_click(visit: Visit) -> None:
    visit.until("facts", "tiny")
    assert visit.text("examples").split("\n") == ["This model draws well, for example", "w1 w2", "w5"]
    visit.page.check("input[name=style][value=w8]", force=True)
    visit.page.click("#examples button:last-child")
    visit.until("status", "Done in")
    assert visit.text("told").startswith("w5, w8 · seed ") and visit.page.input_value("#prompt") == "w5"


def test_a_card_without_examples_shows_none(chromium: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "plain", make_words_bundle(tmp_path / "tiny")) as server:
        visit = Visit(chromium, server.address)
        visit.until("facts", "tiny")
        assert not visit.page.is_visible("#examples") and visit.page.is_visible("#hint")
        visit.context.close()


def test_random_and_fixed_seeds(visit: Visit) -> None:
    visit.draw("w1")
    first = visit.page.input_value("#seed")
    visit.draw("w1")
    second = visit.page.input_value("#seed")
    assert first != second and 0 <= int(second) < 2**32
    visit.page.click("#lock")
    visit.draw("w1")
    assert visit.page.input_value("#seed") == second
    visit.page.click("#dice")
    assert visit.page.input_value("#seed") != second
    visit.page.click("#same")
    visit.until("status", "Done in")
    visit.page.wait_for_selector("#draw:not([hidden])")
    assert f"seed {second}" in visit.text("told")
    visit.page.click("#another")
    visit.until("status", "Done in")
    visit.page.wait_for_selector("#draw:not([hidden])")
    assert f"seed {second}" not in visit.text("told")
    assert visit.page.locator("#gallery li").count() == 5


def test_settings_and_what_is_copied(visit: Visit, shown: Server, styled: Path) -> None:
    visit.until("facts", "tiny")
    visit.page.click("#more summary")
    visit.page.fill("#setting-cfg_scale", "2")
    visit.page.fill("#setting-top_p", "0.5")
    visit.page.check("#setting-smooth")
    assert visit.text("changed") == "3 changed"
    visit.draw("it's w1", 2**64 - 1)
    assert "cfg_scale 2 · top_k 6 3 · top_p 0.5 · smooth true" in visit.text("told")
    copied = {}
    for kind in ("command", "python", "curl"):
        visit.page.click(f"[data-copy={kind}]")
        visit.until("status", "Copied")
        copied[kind] = visit.page.evaluate("navigator.clipboard.readText()")
    options = "--seed 18446744073709551615 --cfg-scale 2 --top-p 0.5 --smooth"
    words = "'it'\\''s w1'"
    assert copied["command"] == f"hart-edge generate {words} --bundle bundles/tiny-2 {options} --out picture.png"
    keywords = 'bundle="bundles/tiny-2", seed=18446744073709551615, cfg_scale=2, top_p=0.5, smooth=True'
    assert f'hart_edge.generate("it\'s w1", {keywords}).save("picture.png")' in copied["python"]
    compile(copied["python"], "copied", "exec")
    assert (
        f"curl -s {shown.address}/v1/images/generations" in copied["curl"]
        and '"seed":18446744073709551615' in copied["curl"]
    )
    visit.page.click("#reset")
    assert visit.text("changed") == ""


def test_the_download_is_read_back(visit: Visit, styled: Path, tmp_path: Path) -> None:
    visit.page.click("#more summary")
    visit.until("facts", "tiny")
    visit.page.fill("#setting-cfg_scale", "2")
    visit.draw("w1 w2", 2**63 + 1)
    with visit.page.expect_download() as download:
        visit.page.click("#download")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.name == f"hart-edge-{2**63 + 1}.png"
    metadata = read_metadata(file)
    assert (metadata.prompt, metadata.seed, metadata.settings["cfg_scale"]) == ("w1 w2", 2**63 + 1, 2)
    assert metadata.bundle_sha256 == hart_edge.load(styled).bundle.sha256
    visit.page.reload()
    visit.until("facts", "tiny")
    visit.page.set_input_files("#file", file)
    visit.until("status", "Read. Draw gives the same picture again.")
    assert visit.page.input_value("#seed") == str(2**63 + 1) and visit.page.input_value("#prompt") == "w1 w2"
    assert visit.page.input_value("#setting-cfg_scale") == "2" and visit.text("changed") == "1 changed"
    visit.page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
    visit.until("status", "This file does not say how it was drawn.")


def test_the_gallery_brings_a_picture_back(visit: Visit) -> None:
    visit.draw("w1", 1)
    visit.draw("w2", 2)
    assert [each.get_attribute("aria-label") for each in visit.page.locator("#gallery button").all()] == [
        "w2, seed 2",
        "w1, seed 1",
    ]
    visit.page.click("#gallery li:last-child button")
    assert visit.page.input_value("#prompt") == "w1" and visit.text("told").startswith("w1 · seed 1")
    assert visit.page.get_attribute("#gallery li:last-child button", "aria-current") == "true"


def test_places_in_the_queue_and_stopping(visit: Visit, shown: Server) -> None:
    for _ in range(3):
        shown.post("/v1/jobs", {"prompt": "w10"})
    visit.until("facts", "tiny")
    visit.page.fill("#prompt", "w10")
    visit.page.press("#prompt", "Enter")
    visit.until("status", "Waiting: ")
    assert visit.page.is_visible("#stop") and not visit.page.is_visible("#draw")
    visit.page.keyboard.press("Escape")
    visit.until("status", "Stopped.")
    assert visit.page.is_visible("#draw")


def test_errors_are_shown_in_words(visit: Visit) -> None:
    visit.until("facts", "tiny")
    for prompt, words in (
        ("zebra", "Prompt: 'zebra' has no token of this model's tokenizer; use words it knows."),
        ("w13", "The server has not enough memory for this picture now; try again later."),
        ("w11", "The process that drew this picture ended"),
    ):
        visit.page.fill("#prompt", prompt)
        visit.page.press("#prompt", "Enter")
        visit.until("status", words)
        assert visit.page.get_attribute("#status", "class") == "wrong"
    visit.said = [line for line in visit.said if "status of 400" not in line]  # the browser's own line


def test_a_server_that_ends(chromium: Any, styled: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "ending", styled) as server:
        visit = Visit(chromium, server.address)
        visit.until("facts", "tiny")
        server.end()
        visit.page.fill("#prompt", "w1")
        visit.page.press("#prompt", "Enter")
        visit.until("status", "The server does not answer. Is it still running?")
        visit.context.close()


def test_a_server_with_a_key(chromium: Any, styled: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "locked", styled, api_key="0123456789abcdef") as server:
        visit = Visit(chromium, server.address)
        visit.page.wait_for_selector("#key-dialog[open]")
        visit.page.fill("#key", "0123456789abcdef")
        visit.page.press("#key", "Enter")
        visit.draw("w1", 4)
        visit.context.close()


def test_everything_has_a_name_and_is_reached_by_keys(visit: Visit) -> None:
    visit.draw("w1", 1)
    visit.page.click("#more summary")
    unnamed = visit.page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, select, a')].filter((each) =>
            !each.hidden && each.offsetParent && !each.ariaLabel && !each.labels?.length && !each.textContent.trim()
        ).map((each) => each.outerHTML)"""
    )
    assert unnamed == []
    visit.page.evaluate("document.activeElement.blur()")
    visit.page.keyboard.press("/")
    reached = ["prompt"]
    for _ in range(30):
        visit.page.keyboard.press("Tab")
        reached.append(visit.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    for id in ("seed", "dice", "lock", "setting-cfg_scale", "draw", "another", "same", "download", "open"):
        assert id in reached, reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(chromium: Any, shown: Server, scheme: str) -> None:
    """Text against what is behind it, by WCAG: 4.5 at least."""
    visit = Visit(chromium, shown.address, color_scheme=scheme)
    visit.draw("w1", 1)
    colours = visit.page.evaluate(
        "() => Object.fromEntries(['paper', 'card', 'ink', 'soft', 'accent', 'accent-ink', 'well'].map((name) =>"
        " [name, getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()]))"
    )

    def light(name: str) -> float:
        parts = [int(colours[name][at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for text, behind in (
        *(("ink", each) for each in ("paper", "card", "well")),
        *(("soft", each) for each in ("paper", "card", "well")),
        *(("accent", each) for each in ("paper", "card", "well")),
        ("accent-ink", "accent"),
    ):
        one, two = sorted((light(text), light(behind)))
        assert (two + 0.05) / (one + 0.05) >= 4.5, (scheme, text, behind, json.dumps(colours))
    visit.context.close()


@pytest.mark.parametrize("width", [320, 390, 768])
def test_narrow_windows_scroll_only_down(chromium: Any, shown: Server, width: int) -> None:
    visit = Visit(chromium, shown.address, viewport={"width": width, "height": 700})
    visit.draw("w1 w2 w3 w4", 1)
    visit.page.click("#more summary")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    visit.context.close()
