"""The GPU check's bookkeeping, with a Python that only notes its commands: no GPU and no physics."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check.sh"
STUB = """#!/bin/sh
[ "$1" = - ] && exec {python} "$@"
echo "$*" | head -n 1 >>{commands}
case "$*" in *max_env_steps=*) mkdir -p {out}/run/checkpoints && touch {out}/run/checkpoints/last.pt;; esac
case "$*" in *"$FAIL"*) echo FAILED; exit 1;; esac
echo '{{"done": true}}'
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("timeout"), reason="needs bash and coreutils")]


def check(folder: Path, fail: str = "nothing", limit: int = 540, **env: str) -> tuple[list[dict], list[str]]:
    """The JSON lines of one call, and the commands that it ran."""
    commands, stub = folder / "commands", folder / "python"
    commands.write_text("")
    stub.write_text(STUB.format(python=sys.executable, commands=commands, out=folder / "out"))
    stub.chmod(0o755)
    words = ["bash", str(SCRIPT), str(folder / "out")]
    done = subprocess.run(
        words,
        env={**os.environ, "PYTHON": str(stub), "FAIL": fail, "LIMIT": str(limit), **env},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [row for row in rows if row["step"] != "nvidia_smi"], commands.read_text().splitlines()


def test_help_is_the_head_of_the_script(tmp_path: Path) -> None:
    said = subprocess.run(
        ["bash", str(SCRIPT), "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith("Everything that only a GPU can show") and "gpu_check.sh [folder for logs]" in said
    assert "set -u" not in said and not list(tmp_path.iterdir())


def test_what_failed_is_all_that_is_done_again(tmp_path: Path) -> None:
    first, _ = check(tmp_path, fail="-m gpu tests/sim")
    names = [row["step"] for row in first]
    assert len(set(names)) == len(names) > 10
    assert [row["step"] for row in first if row["exit"]] == ["tests_engine"]
    again, commands = check(tmp_path)
    assert [(row["step"], row["exit"], row["done"]) for row in again] == [("tests_engine", 0, True)]
    assert len(commands) == 1 and commands[0].endswith("tests/sim")
    assert check(tmp_path) == ([], [])


def test_a_sizes_speed_does_not_hang_on_ten_million_steps(tmp_path: Path) -> None:
    rows, commands = check(tmp_path, fail="env_steps=")
    failed = [row["step"] for row in rows if row["exit"]]
    assert "engine_16384" not in failed and any(name.startswith("random") for name in failed)
    assert any("num_envs=16384" in line and "env_steps" not in line for line in commands)


def test_a_run_whose_folder_is_lost_is_made_again_with_all_that_needs_it(tmp_path: Path) -> None:
    check(tmp_path)
    shutil.rmtree(tmp_path / "out" / "run")
    assert [row["step"] for row in check(tmp_path)[0]] == ["run", "continued", "evaluated", "filmed"]


def test_what_has_less_than_half_of_its_time_is_left_for_the_next_call(tmp_path: Path) -> None:
    rows, _ = check(tmp_path, limit=65)
    done = {row["step"] for row in rows if "skipped" not in row}
    assert {"machine", "tests_learner", "evaluated"} <= done
    assert not done & {"engine_2048", "train_2048", "tests_engine"}
    assert {row["step"] for row in check(tmp_path)[0]} == {row["step"] for row in rows} - done


def test_every_gpu_test_is_in_one_part_and_is_named_and_counted(tmp_path: Path) -> None:
    """pyproject.toml already has a -q: with another, pytest would not even count."""
    _, commands = check(tmp_path)
    parts = [line.split() for line in commands if line.startswith("-m pytest")]
    assert len(parts) > 1 and all("-vv" in words and "-q" not in words for words in parts)
    apart = {word.partition("=")[2] for words in parts for word in words if word.startswith("--ignore=")}
    alone = {words[-1] for words in parts if not words[-1].startswith("--")}
    assert apart == alone and any("tests" in words for words in parts)


def test_the_gpu_that_is_watched_is_the_one_that_computes(tmp_path: Path) -> None:
    watch = tmp_path / "nvidia-smi"
    watch.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/watched\nexec sleep 60\n')
    watch.chmod(0o755)
    check(tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}", CUDA_VISIBLE_DEVICES="3,1")
    assert (tmp_path / "watched").read_text().startswith("-i 3 ")
