"""The generated page is what the tasks say, and every task says what it pays, when it ends and when it is solved."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from dima_isaac.run.catalog import Catalog
from dima_isaac.sim.rotations import angle_between
from dima_isaac.tasks.bidexhands.catch import Catch, CatchConfig
from dima_isaac.tasks.bidexhands.hands.starts import spin
from tests.tasks.bidexhands.test_suite import TASKS

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "gen_task_docs.py"


@pytest.fixture(scope="module")
def docs():
    spec = importlib.util.spec_from_file_location("gen_task_docs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(docs):
    assert docs.PAGE.read_text() == docs.page(), "run scripts/gen_task_docs.py"


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_described(docs, name):
    row, text = docs.section(name, Catalog())
    assert name in row
    for title in ("**Reward**", "**Ends**", "**Solved**"):
        assert title in text
    assert "{" not in text


def test_a_block_is_read_with_its_continuations(docs, tmp_path):
    module = type(docs)("example")
    module.__doc__ = "A task.\n\n    reward  one\n            and two\n    ends    never\n\nMore."
    assert docs.card(module) == ("A task.", {"reward": "one and two", "ends": "never"})


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_its_picture(name):
    assert (SCRIPT.parents[1] / "docs" / "gallery" / f"{name}.png").is_file()


def oddities(docs) -> list[list[str]]:
    """The rows of the page's last table: number, published, here, fields."""
    table = docs.PAGE.read_text().split("## The benchmark's oddities")[1]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if re.match(r"\| \d", line)]


def test_every_oddity_has_its_row_and_every_field_it_names_exists(docs):
    rows = oddities(docs)
    assert [int(number) for row in rows for number in row[0].split(",")] == list(range(1, 35))
    catalog = Catalog()
    known = {key for name in TASKS for key in catalog.settable("task", name)}
    named = {word for row in rows for word in re.findall(r"`(\w+)`", row[3])}
    assert named and named <= known


def test_hands_are_counted_from_zero_throughout(docs):
    published = {row[0]: row[1] for row in oddities(docs)}
    assert "hand 2" not in docs.page()
    assert "moves hand 0 alone" in published["19"] and "leaves hand 1 out" in published["31"]


def test_the_page_describes_the_randomisation_that_there_is(docs):
    hands = Catch(CatchConfig(randomize=True)).scene().actors[:2]
    assert all(hand.variation is not None for hand in hands)
    row = next(row for row in oddities(docs) if row[0] == "31")
    assert row[2].startswith("never: both hands") and row[3] == "`randomize`"


def test_the_page_of_untrained_rewards_gives_its_uncertainty():
    text = (SCRIPT.parents[1] / "docs" / "untrained.md").read_text()
    turns = spin(2.0 * torch.rand(2, 200_000, 2, generator=torch.Generator().manual_seed(0)) - 1.0)
    theta = angle_between(*turns)
    caught, turned = torch.exp(-0.2 * theta), 2.0 / (theta + 0.1)
    assert f"standard error of {100 * caught.std() / caught.mean() / 64**0.5:.0f} % in Over" in text
    assert f"of {turned.std() / 64**0.5:.2f}\n  in ReOrientation" in text
    assert f"{turned.mean():.2f} for the angles" in text
