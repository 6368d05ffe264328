"""Pages that are linked to, or named in the code, exist, and have the headings that links name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md"),
                 *(ROOT / "hart_edge/models").rglob("*.md"))
)  # fmt: skip
PACKAGES = ("hart_edge", "export", "engines", "runtime", "calib", "benchmarks", "examples")
CODE = {".py", ".h", ".cpp", ".c", ".cmake", ".sh", ".go", ".rs"}
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
NAMED = re.compile(r"\b((?:docs|benchmarks)/[\w/]+\.md)\b")


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings: lower case, words joined by -, all other characters dropped."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target, anchor in LINK.findall(page.read_text("utf-8")):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), f"{name} links to {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{name} links to #{anchor} of {found.name}"


@pytest.mark.parametrize("name", PAGES)
def test_a_link_named_after_a_file_leads_to_that_file(name: str) -> None:
    """[scheme.py](../calib/scheme.py) and [jetson.md](jetson.md#what-to-expect), and not to another of the pages."""
    for text, target in re.findall(r"\[`?([\w./-]+\.(?:py|md|h|c|cpp|json|txt|sh|cff))`?\]\(([^)#\s]+)", read(name)):
        leads = (ROOT / name).parent.joinpath(target).resolve()
        assert leads.as_posix().endswith(f"/{text.lstrip('./')}"), f"{name}: {text} leads to {target}"


@pytest.mark.parametrize("name", PAGES)
def test_headings_of_a_page_can_be_told_apart(name: str) -> None:
    """A link to one of two headings with one name would lead to the first."""
    wanted = {anchor for target, anchor in LINK.findall(read(name)) if anchor and not target}
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", read(name), flags=re.DOTALL), re.MULTILINE)
    called = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert [anchor for anchor in wanted if called.count(anchor) != 1] == []


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def test_pages_named_in_the_code_exist() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.suffix in CODE]
    named = {(page, path.relative_to(ROOT)) for path in files for page in NAMED.findall(path.read_text("utf-8"))}
    assert ("docs/engines.md", Path("calib/scheme.py")) in named
    assert not {f"{path}: {page}" for page, path in named if not (ROOT / page).exists()}
