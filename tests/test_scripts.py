"""Every script answers --help, and a mistake with one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = sorted((Path(__file__).parents[1] / "scripts").glob("*.py"))


def run(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_says_how_to_call_it(script):
    told = run(script, "--help")
    assert told.returncode == 0, told.stderr
    assert script.name in told.stdout
    assert not told.stderr


@pytest.mark.parametrize("name", ["gallery", "sanity", "untrained", "play"])
def test_a_task_that_is_not_there_is_one_sentence(name):
    words = ("task=ShadowHandPem", "agent=zero") if name == "play" else ("ShadowHandPem",)
    told = run(SCRIPTS[0].parent / f"{name}.py", *words)
    assert told.returncode == 2
    assert "did you mean ShadowHandPen?" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("name", ["study_dream", "study_flight", "study_readouts", "study_reveal", "evaluate"])
def test_a_checkpoint_that_is_not_there_is_one_sentence(name, tmp_path):
    told = run(SCRIPTS[0].parent / f"{name}.py", f"checkpoint={tmp_path / 'none'}")
    assert told.returncode == 3
    assert "there is no checkpoint" in told.stderr
    assert "Traceback" not in told.stderr
