"""The policies that come with the library are whole, small, and what their files say."""

import json
import shlex
import shutil

import numpy as np
import pytest
import torch

from dima_isaac.cli.args import parse
from dima_isaac.cli.compose import compose
from dima_isaac.errors import CheckpointError, UsageError
from dima_isaac.run import zoo
from dima_isaac.tools.export import index
from dima_isaac.tools.policies import load_policy

NAMES = zoo.names()


def test_there_are_policies_and_every_folder_is_one():
    assert "ShadowHandOver" in NAMES
    assert sorted(path.name for path in zoo.folder().iterdir() if path.is_dir() and path.name[0] != "_") == NAMES
    assert sum(path.stat().st_size for path in zoo.folder().glob("*/*")) < 8e6


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_the_policy_is_and_is_worth(name):
    card, folder = zoo.card(name), zoo.folder() / name
    assert {"task", "algorithm", "env_steps", "minutes", "command", "commit", "seed", "evaluation"} <= card.keys()
    assert card["commit"] and card["evaluation"]["episodes"] == 128
    program, script, *words = shlex.split(card["command"])
    run = compose(parse("train", words))  # still a run that the program takes
    assert (program, script, run.task["name"]) == ("python", "scripts/train.py", card["task"])
    assert (run.algo.name, run.seed, run.max_env_steps) == (card["algorithm"], card["seed"], card["env_steps"])
    files = {path.name for path in folder.iterdir()}
    assert {"policy.onnx", "policy.pt", "weights.pt", "config.yaml", "card.yaml", "curve.csv"} <= files
    assert (folder / "weights.pt").stat().st_size < 1e6
    for path in folder.iterdir():  # no place of the machine where it was made
        assert not any(place in path.read_bytes() for place in (b"/home/", b"/root/", b"/tmp/")), path


@pytest.mark.parametrize("name", NAMES)
def test_its_files_are_one_policy(name):
    """Weights and TorchScript agree exactly, ONNX to rounding; an agent's action is of its own row alone."""
    policy, folder = load_policy(f"zoo:{name}"), zoo.folder() / name
    dims = policy.spec.dims
    obs = 2.0 * torch.randn(5, dims.agents, dims.obs, generator=torch.Generator().manual_seed(0))
    action = policy.act(obs)
    assert action.shape == (5, dims.agents, dims.action) and action.abs().max() <= 1.0
    assert torch.equal(torch.jit.load(folder / "policy.pt")(obs), action)
    alone = torch.zeros_like(obs)
    alone[:, -1] = obs[:, -1]
    torch.testing.assert_close(policy.act(alone)[:, -1], action[:, -1], rtol=0.0, atol=1e-5)
    onnx = pytest.importorskip("onnxruntime")
    (found,) = onnx.InferenceSession(folder / "policy.onnx").run(None, {"obs": obs.numpy()})
    np.testing.assert_allclose(found, action.numpy(), rtol=0.0, atol=1e-5)


def test_the_page_is_what_the_cards_say():
    assert (zoo.folder() / "README.md").read_text(encoding="utf-8") == index()


def test_the_best_policy_of_a_task_has_the_highest_return(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "folder", lambda: tmp_path)
    for name, task, value in (("a", "Over", 1.0), ("b", "Over", 3.0), ("c", "Pen", 9.0)):
        (tmp_path / name).mkdir()
        card = {"task": task, "evaluation": {"return_mean": value}}
        (tmp_path / name / "card.yaml").write_text(json.dumps(card))
    assert (zoo.best("Over"), zoo.best("Pen"), zoo.best("Kettle")) == ("b", "c", "")
    with pytest.raises(UsageError, match=r"unknown policy of the zoo 'd'.*Known: a, b, c\."):
        zoo.weights("d")
    shutil.rmtree(tmp_path / "b")
    assert zoo.best("Over") == "a"
    for garbled in (b"", b"task: [", b"\xff", b"- 3", b"task: Over"):
        (tmp_path / "a" / "card.yaml").write_bytes(garbled)
        with pytest.raises(CheckpointError, match=r"a/card\.yaml is not the card of a policy"):
            zoo.best("Over")
