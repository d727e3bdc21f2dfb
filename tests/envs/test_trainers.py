"""docs/trainers.md: every trainer runs for a few updates, and every view has a row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
TRAINERS = dict(re.findall(r"## (.+?)\n.*?```python\n(.*?)```", PAGE, re.DOTALL))
NEEDS = {
    "Stable-Baselines3": "stable_baselines3",
    "TorchRL": "torchrl",
    "Gymnasium": "gymnasium",
    "PettingZoo": "pettingzoo",
}


@pytest.mark.slow
@pytest.mark.parametrize("library", TRAINERS)
def test_a_trainer_runs(library: str) -> None:
    pytest.importorskip(NEEDS[library], reason=f"{library} is not installed")
    names: dict[str, Any] = {"__name__": "trainer"}
    exec(compile(TRAINERS[library], "docs/trainers.md", "exec"), names)
    curve = np.asarray(names["train"](2), dtype=float)
    assert len(curve) >= 2 and np.isfinite(curve).all()
    assert curve.std() > 0, "nothing was learnt, or nothing was played"


def test_every_view_has_a_row_and_every_library_a_trainer() -> None:
    views = {path.stem for path in (ROOT / "dima_isaac" / "envs" / "views").glob("*.py")} - {"__init__"}
    assert views == set(re.findall(r"^\| .+? \| `(\w+)\.\w+`", PAGE, re.MULTILINE))
    assert TRAINERS.keys() == NEEDS.keys()
