"""Programs of Isaac Gym as modules: ``program("cartpole")`` imports one while ``isaacgym`` is this package's."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dima_isaac.gym import simulation
from dima_isaac.gym.__main__ import modules

PROGRAMS = Path(__file__).with_name("programs")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.setattr(simulation.SETTINGS, "threads", 1)
    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"program_{name}", PROGRAMS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
