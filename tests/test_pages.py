"""The pages' links lead somewhere, and every picture is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def targets(page: Path) -> list[Path]:
    """The files that ``page`` links to or shows."""
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    return [(page.parent / link).resolve() for link in links if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    missing = [str(path) for path in targets(page) if not path.exists()]
    assert not missing


def test_every_page_and_picture_is_linked():
    linked = {path for page in PAGES for path in targets(page)} | {ROOT / "README.md"}
    pictures = {path for path in (ROOT / "docs").rglob("*.png")}
    assert {*PAGES, *pictures} - linked == set()


def test_the_index_names_every_page_of_its_folder():
    index = ROOT / "docs" / "README.md"
    pages = {*(ROOT / "docs").glob("*.md")} - {index}
    assert pages <= set(targets(index))


def test_what_holds_today_fits_on_a_page():
    assert len((ROOT / "docs" / "results.md").read_text().splitlines()) <= 150
