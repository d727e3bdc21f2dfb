"""Runs of the toy game, for the tools to read."""

from pathlib import Path

import pytest

from dima_isaac.cli import main as cli
from tests.tools.toy_runs import TOY


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """Two seeds of the toy game."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        words = ["train", *TOY, "task=Toy", "engine=toy", "preset=smoke", f"seed={seed}", f"run_dir={folder}/{seed}"]
        words += ["max_env_steps=384", "threads=1", "train.probe_every=128", "train.eval.every=64"]
        assert cli.main(words) == 0
    return folder
