"""The pages' links lead somewhere, and every picture is shown."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from dima_isaac.cli.args import OPTIONS, parse
from dima_isaac.cli.compose import compose

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = sorted(  # (script, words)
    {
        (found[1] or found[2], found[3].strip())
        for page in (ROOT / "README.md", ROOT / "docs" / "running.md", ROOT / "docs" / "python.md")
        for found in re.finditer(r"(?:scripts/(\w+)\.py|\bdima (\w+)) ([^`#|\n]+)", page.read_text())
    }
)


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


@pytest.mark.parametrize(("name", "words"), COMMANDS)
def test_a_command_is_one_that_the_program_takes(name, words):
    assert (ROOT / "scripts" / f"{name}.py").is_file()
    if name in OPTIONS:
        args = parse(name, shlex.split(words))
        if name == "train" and not args.multirun:
            compose(args)


def test_there_are_commands():
    assert {name for name, _ in COMMANDS} >= {"train", "evaluate", "play", "plot", "bench"}


def test_the_torch_that_uv_takes_is_the_constraints_own():
    pinned = (ROOT / "constraints.txt").read_text().splitlines()[-1]
    assert pinned.startswith("torch==") and f"--with {pinned} " in (ROOT / "README.md").read_text()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["constraint-dependencies"] == [pinned]


@pytest.mark.slow
@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))
def test_the_readmes_python_runs(code):
    exec(compile(code, "README.md", "exec"), {})
