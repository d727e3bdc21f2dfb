"""``export``: the folder that it writes is the run's policy, wherever a checkpoint is taken."""

import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from dima_isaac.cli import main as cli
from dima_isaac.cli.args import parse
from dima_isaac.cli.compose import compose
from dima_isaac.config import typed
from dima_isaac.run import checkpoint
from dima_isaac.run.build import build_task
from dima_isaac.run.catalog import Catalog
from dima_isaac.run.folder import find
from dima_isaac.tools.restore import Restored, read_run
from tests.cli.program import ENV, ROOT
from tests.tools.toy_runs import TOY, last_json

pytestmark = pytest.mark.slow

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def toy_catalogue():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIMA_CONFIG_DIR", TOY[1])
        yield


@pytest.fixture(scope="module", params=["dima", "sac", "ppo"])
def exported(request, runs, tmp_path_factory, toy_catalogue):
    """A run and the folder of its policy."""
    folder = tmp_path_factory.mktemp(request.param)
    run = runs / "0"
    if request.param != "dima":
        run = folder / "run"
        words = [
            "task=Toy",
            "engine=toy",
            f"algo={request.param}",
            "preset=smoke",
            "seed=5",
            "threads=1",
            *(["agent.gamma=0.9"] if request.param == "sac" else []),
        ]
        assert cli.main(["train", *words, f"run_dir={run}"]) == 0
    out = folder / "policy"
    words = [f"checkpoint={run}", f"out={out}", "episodes=8", "num_envs=4", "commit=abc", "threads=1"]
    assert cli.main(["export", *words]) == 0
    return run, out


def test_the_files_are_one_policy(exported):
    from dima_isaac.tools.policies import load_policy

    run, out = exported
    obs = torch.randn(7, 2, 6, generator=torch.Generator().manual_seed(1))
    action = load_policy(str(run)).act(obs)
    assert torch.equal(load_policy(str(out)).act(obs), action)
    assert torch.equal(torch.jit.load(out / "policy.pt")(obs), action)
    (found,) = onnxruntime.InferenceSession(out / "policy.onnx").run(None, {"obs": obs.numpy()})
    np.testing.assert_allclose(found, action.numpy(), rtol=0.0, atol=1e-5)


def test_loading_a_policy_touches_no_random_numbers(exported):
    from dima_isaac.tools.policies import load_policy

    before = torch.get_rng_state()
    load_policy(str(exported[1]))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_card_is_what_evaluate_measures(exported, capsys):
    run, out = exported
    card = yaml.safe_load((out / "card.yaml").read_text())
    for where in (run, out):
        capsys.readouterr()
        assert cli.main(["evaluate", f"checkpoint={where}", "episodes=8", "num_envs=4", "threads=1"]) == 0
        found = last_json(capsys.readouterr().out)["policies"]["trained"]
        assert card["evaluation"] == {"episodes": 8, **{key: round(value, 4) for key, value in found.items()}}
    assert card["task"] == "Toy" and card["commit"] == "abc" and card["env_steps"] > 0
    assert (out / "curve.csv").read_text().startswith("env_steps,wall_time,eval/return,eval/success")


def test_the_card_s_command_gives_the_run_s_settings(exported):
    run, out = exported
    words = shlex.split(yaml.safe_load((out / "card.yaml").read_text())["command"])
    assert words[:2] == ["python", "scripts/train.py"]
    again = compose(parse("train", words[2:]))
    then = checkpoint.read(find(str(run)))["config"]
    assert again.agent.gamma == then["agent"]["gamma"] and again.seed == then["seed"]
    assert again.num_envs == then["num_envs"] and again.train.learn.start == then["train"]["learn"]["start"]


def test_training_begins_with_the_actors_of_a_policy(exported, tmp_path, capsys):
    """Without an update in between they are as they were, and a kill before the first save loses nothing."""
    run, out = exported
    algo = checkpoint.read(find(str(run)))["config"]["algo"]
    words = ["task=Toy", "engine=toy", f"algo={algo}", "preset=smoke", "threads=1", f"run_dir={tmp_path / 'new'}"]
    if algo == "ppo":
        assert cli.main(["train", *words, f"checkpoint={out}"]) == 3
        assert "is a policy alone; algo=ppo continues runs." in capsys.readouterr().err
        return
    words += ["agent.sac.start=100000", "max_env_steps=64"]
    assert cli.main(["train", *words, f"checkpoint={out}"]) == 0
    assert "the actors begin with the weights of that policy" in capsys.readouterr().out
    began = checkpoint.read(tmp_path / "new" / "checkpoints" / "step_0.pt")
    ended = checkpoint.read(find(str(tmp_path / "new")))
    for name, value in checkpoint.read(out / "weights.pt")["policy"].items():
        assert torch.equal(began["agent"][f"actor.{name}"], value)
        assert "moments" in name or torch.equal(ended["agent"][f"actor.{name}"], value)
        assert torch.equal(began["agent"].get(f"trained.{name}", value), value), "SAC goes on learning from it"


def test_a_policy_alone_explores_with_its_weights(exported):
    path, state, stored = read_run(str(exported[1]), Catalog())
    agent = Restored(path, typed(stored), state).agent(build_task(typed(stored)))
    exploring = getattr(agent, "trained", getattr(agent, "actor", agent)).state_dict()
    for name, value in state["policy"].items():
        assert torch.equal(exploring[name], value)


def test_a_policy_alone_has_no_world_model_and_fits_its_own_learner(exported, tmp_path, capsys):
    _, out = exported
    assert cli.main(["evaluate", f"checkpoint={out}", "episodes=2", "num_envs=2", "probe=True", "threads=1"]) == 2
    assert "world model" in capsys.readouterr().err
    study = [sys.executable, ROOT / "scripts" / "study_diffusion.py", out]
    ended = subprocess.run(study, env=ENV | {"DIMA_CONFIG_DIR": TOY[1]}, capture_output=True, text=True)
    assert ended.returncode == 2 and "has no replay." in ended.stderr and "Traceback" not in ended.stderr
    words = ["task=Toy", "engine=toy", "agent.learner=ppo", "preset=smoke", f"run_dir={tmp_path / 'x'}", "threads=1"]
    assert cli.main(["train", *words, f"checkpoint={out}"]) == 3
    said = capsys.readouterr().err
    assert "does not fit this run: it was made with other settings (" in said and "-> ppo" in said
