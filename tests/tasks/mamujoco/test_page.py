"""docs/mamujoco.md: its table is the code's, and its Python runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dima_isaac.tasks.mamujoco.robot import Robot
from tests.tasks.mamujoco.reference import build
from tests.tasks.mamujoco.test_parity import DEPTHS, PARTITIONS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "mamujoco.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.split("## Robots and partitions")[1].split("\n- ")[0].splitlines()
    if line.startswith("|")
][2:]
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_table_has_every_partition_that_a_name_stands_for() -> None:
    told = {robot: {row[1] for row in ROWS if row[0] == robot} for robot in {row[0] for row in ROWS}}
    named = {robot: {build(robot).partitions[0], *PARTITIONS[robot]} for robot in PARTITIONS}
    chains = ("ManySegmentAnt", "ManySegmentSwimmer")  # of any length: one example each
    assert {k: v for k, v in told.items() if k not in chains} == {k: v for k, v in named.items() if k not in chains}
    assert all(len(told[robot]) == 1 for robot in chains)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_a_row_has_the_values_of_the_task(row: list[str]) -> None:
    robot, conf, agents, action, state, seen, falls = row
    tasks = [build(robot, conf, depth) for depth in DEPTHS]
    dims = tasks[0].spec.dims
    assert [dims.agents, dims.action, dims.state] == [int(agents), int(action), int(state)]
    assert " / ".join(str(task.spec.dims.obs) for task in tasks) == seen
    assert (falls == "yes") == (type(tasks[0])._fallen is not Robot._fallen)


@pytest.mark.parametrize("code", SNIPPETS, ids=range(len(SNIPPETS)))
def test_its_python_runs(code: str) -> None:
    names: dict[str, object] = {}
    exec(compile(code, "docs/mamujoco.md", "exec"), names)
    assert names["step"].obs.shape == (256, 2, 17)  # type: ignore[attr-defined]


def test_there_are_snippets_and_rows() -> None:
    assert len(SNIPPETS) == 1 and len(ROWS) >= 20
