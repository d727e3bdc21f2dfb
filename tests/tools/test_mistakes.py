"""A mistake on a tool's command line is one sentence."""

import subprocess
import sys

import pytest

from dima_isaac.cli import main as cli
from dima_isaac.cli.args import OPTIONS
from tests.tools.toy_runs import ROOT, TOY


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["play", "task=Toi", "agent=zero"], 2, "did you mean Toy"),
        (["play", "task=Toy", "engine=toy", "agent=zero"], 2, "cannot draw"),
        (["play", "task=Toy", "engine=toy", "agent=zero", "world=dream"], 2, "world=dream needs checkpoint"),
        (["play", "task=Toy", "engine=toy", "agent=zero", "headless=False"], 2, "this engine has no live viewer"),
        (["play", "task=Toy", "engine=toy", "agent=zero", "out=x.avi"], 2, "neither .mp4 nor .gif"),
        (["play", "task=Toy", "agent=zero", "task.fense=1"], 2, "did you mean task.fence"),
        (["evaluate", "checkpoint=nowhere"], 3, "there is no checkpoint nowhere"),
        (["evaluate", "checkpoint=latest"], 3, "there is no checkpoint under"),
        (["evaluate", "checkpoint=zoo:ShadowHandOvr"], 2, "did you mean ShadowHandOver?"),
        (["train", "task=Toy", "engine=toy", "checkpoint=zoo:none"], 2, "Known: "),
        (["play", "task=Toy"], 2, "the zoo has no policy for it, only "),
        (["export"], 2, "checkpoint=RUN|FILE|latest is missing"),
        (["export", "checkpoint=nowhere", "task.fence=1"], 2, "task.fence of a checkpoint's run cannot be changed"),
        (["evaluate", "task=Toy", "agent=zero", "probe=True"], 2, "probe=True needs checkpoint"),
        (["train", "task=Toy", "engine=toy", "test=True"], 2, "test=True needs checkpoint"),
        (["plot", "nowhere"], 2, "nowhere is not a folder"),
        (["plot", "."], 2, "holds no run"),
        (["bench", "suite=engine"], 2, "suite=engine needs task=NAME"),
        (["bench", "suite=mamujoco", "engine=toy"], 2, "leave engine and threads out"),
        (["bench", "suite=imagine", "task=Toy", "engine=toy", "against=papr"], 2, "did you mean paper"),
    ],
)
def test_mistakes_cost_one_sentence(words, code, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extra = [] if words[0] == "plot" else ["threads=1"]
    assert cli.main([words[0], *TOY, *words[1:], *extra]) == code
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir()), "a mistake leaves nothing behind"


@pytest.mark.slow
def test_a_wrong_task_for_a_checkpoint_is_a_checkpoint_error(runs, capsys):
    assert cli.main(["evaluate", *TOY, f"checkpoint={runs}/0", "task=ShadowHandOver", "threads=1"]) == 3
    assert "was made on task Toy, not ShadowHandOver" in capsys.readouterr().err


@pytest.mark.slow
def test_a_checkpoint_of_a_task_elsewhere_asks_for_its_folder(runs, capsys):
    assert cli.main(["evaluate", f"checkpoint={runs}/0", "threads=1"]) == 3
    message = "was made on task Toy, which is not known here; if it is your own, add --config-dir DIR. Known: "
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("tool", OPTIONS)
def test_help_and_typos_need_no_torch(tool, tmp_path):
    code = "import sys; from dima_isaac.cli import main as cli\n"
    code += f"cli.main(['{tool}', '--help']); cli.main(['{tool}', 'sead=1']);"
    code += "print([name for name in ('torch', 'numpy', 'hydra', 'matplotlib', 'mujoco') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]") and "did you mean seed?" in done.stderr
