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
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert script.name in done.stdout
    assert not done.stderr


@pytest.mark.parametrize("name", ["gallery", "sanity", "untrained", "play"])
def test_a_task_that_is_not_there_is_one_sentence(name):
    words = ("task=ShadowHandPem", "agent=zero") if name == "play" else ("ShadowHandPem",)
    done = run(SCRIPTS[0].parent / f"{name}.py", *words)
    assert done.returncode == 2
    assert "did you mean ShadowHandPen?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("name", "word"), [("study_dream", ""), ("study_diffusion", ""), ("evaluate", "checkpoint=")])
def test_a_checkpoint_that_is_not_there_is_one_sentence(name, word, tmp_path):
    done = run(SCRIPTS[0].parent / f"{name}.py", f"{word}{tmp_path / 'none'}")
    assert done.returncode == 3
    assert "there is no checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
