"""The generated page is what the tasks say, and every task says what it pays, when it ends and when it is solved."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from dima_isaac.catalog import Catalog
from dima_isaac.tasks.bidexhands.hand_over import ShadowHandOver, ShadowHandOverConfig
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


def test_every_oddity_has_its_row_and_every_field_it_names_exists(docs):
    numbers = [int(number) for row in docs.ODDITIES for number in row[0].split(",")]
    assert numbers == list(range(1, 32))
    catalog = Catalog()
    known = {key for name in TASKS for key in catalog.values("task", name)}
    named = {word for row in docs.ODDITIES for word in re.findall(r"`(\w+)`", row[3])}
    assert named and named <= known


def test_the_page_tells_of_the_randomisation_that_there_is(docs):
    hands = ShadowHandOver(ShadowHandOverConfig(randomize=True)).scene().actors[:2]
    assert all(hand.variation is not None for hand in hands)
    row = next(row for row in docs.ODDITIES if row[0] == "31")
    assert row[2].startswith("never: both hands") and row[3] == "`randomize`"
