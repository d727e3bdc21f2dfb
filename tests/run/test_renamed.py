"""Runs stored under earlier names are read under today's."""

from pathlib import Path

import pytest
import torch
import yaml

from dima_isaac.config import RunConfig, typed
from dima_isaac.errors import CheckpointError
from dima_isaac.run import renamed
from dima_isaac.run.checkpoint import FORMAT, read
from dima_isaac.run.folder import read_config
from dima_isaac.run.plan import plan
from dima_isaac.run.sealed import save
from dima_isaac.schema import as_dict, leaves, schema

OLD = {
    "task": {"name": "Toy"},
    "agent": {"speed": {"most": 3.0, "least": 0.0}, "kind": "plain", "beta": 0.5},
    "seed": 4,
}


@pytest.fixture
def tables(monkeypatch):
    """A history of renamings."""
    moved = {"agent.speed": "agent.rate", "agent.beta": "agent.rate.decay", "agent.a": "agent.c", "agent.b": "agent.c"}
    moved["agent.eyes.kind"] = "agent.eyes"
    monkeypatch.setattr(renamed, "RENAMED", moved)
    merged = {False: {"agent.x": 0, "agent.y": "no"}, True: {"agent.x": 1, "agent.y": "yes"}}
    monkeypatch.setattr(renamed, "MERGED", {"agent.flag": merged})
    monkeypatch.setattr(renamed, "DROPPED", {"agent.kind": ("plain", "usual")})
    monkeypatch.setattr(renamed, "ADDED", {})
    monkeypatch.setattr(renamed, "STATE", {"world": {"space.old": "space.new", "gone": None}})


def test_every_entry_leads_to_a_key_of_today_and_none_starts_at_one():
    today = dict(schema(RunConfig))
    free = ("task.", "engine.")
    targets = [*renamed.RENAMED.values(), *renamed.MERGED, *renamed.ADDED]
    assert all(new in today or new.startswith(free) for new in targets)
    parts = [key for meanings in renamed.MERGED.values() for meaning in meanings.values() for key in meaning]
    assert not [old for old in (*renamed.RENAMED, *renamed.DROPPED, *parts) if old in today]


def test_a_configuration_of_today_is_left_alone():
    config = as_dict(RunConfig(task={"name": "Toy"}))
    assert renamed.renamed_config(config) == config


def test_a_run_of_the_first_release_is_read():
    assert dict(leaves(renamed.renamed_config({"world_model": {"exact_echo": False}}))) == {
        "world_model.copy_last_action": False
    }
    decoder = {"world_model": {"decoder": {"kind": "exact", "tokens": 12, "optim": {"lr": 3e-4}}}}
    assert renamed.renamed_config(decoder) == {"world_model": {"decoder": "exact"}}
    state = renamed.renamed_state({"world": {"space.relevance": 1, "space.state.mean": 2}, "env_steps": 3})
    assert state == {"world": {"loss_weights.value": 1, "target.state.mean": 2}, "env_steps": 3}


def test_the_decoder_was_a_branch():
    old = {"world_model": {"decoder": {"kind": "vq", "tokens": 12, "optim": {"lr": 3e-4}}}}
    assert renamed.renamed_config(old) == {"world_model": {"decoder": "vq"}}
    old["world_model"]["decoder"]["kind"] = "fsq"
    with pytest.raises(CheckpointError, match=r"decoder\.kind=fsq"):
        renamed.check_expressible(renamed.renamed_config(old), "run")


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_configuration_of_the_first_release_is_one_of_today(preset):
    default, paper = yaml.safe_load_all((Path(__file__).parent / "first_release.yaml").read_text())
    stored = default if preset == "default" else merged(default, paper)
    config = renamed.renamed_config(stored)
    renamed.check_expressible(config, "first_release.yaml")
    run = typed(config)
    assert run.preset == preset and run.agent.ppo.published is (preset == "paper")


def merged(one: dict, other: dict) -> dict:
    out = dict(one)
    for key, value in other.items():
        out[key] = merged(one[key], value) if isinstance(value, dict) else value
    return out


def test_a_run_of_before_the_choice_of_a_learner_keeps_its_own():
    assert renamed.renamed_config({"agent": {"gamma": 0.9}})["agent"] == {"gamma": 0.9, "learner": "ppo"}
    assert renamed.renamed_config({"agent": {"learner": "sac"}})["agent"]["learner"] == "sac"


@pytest.mark.parametrize(("share", "explore"), [(0.0, {"max_std": 0.0}), (0.3, {})])
def test_a_run_without_slow_noise_stays_without(share, explore):
    new = renamed.renamed_config({"agent": {"explore": {"share": share}}})
    assert new["agent"]["explore"] == explore
    renamed.check_expressible(new, "run")


def test_leaves_and_branches_move_and_dropped_keys_go(tables):
    new = renamed.renamed_config(OLD)
    assert new["agent"] == {"rate": {"most": 3.0, "least": 0.0, "decay": 0.5}} and new["seed"] == 4
    assert OLD["agent"]["kind"] == "plain", "the caller's copy is untouched"
    renamed.check_expressible(new, "run")


def test_a_branch_may_become_the_leaf_that_one_of_its_keys_was(tables):
    assert renamed.renamed_config({"agent": {"eyes": {"kind": "sharp", "number": 2}}}) == {"agent": {"eyes": "sharp"}}


def test_a_value_that_cannot_be_expressed_is_refused(tables):
    new = renamed.renamed_config({"agent": {"kind": "beta"}})
    with pytest.raises(CheckpointError, match=r"runs/a was made with agent\.kind=beta, which"):
        renamed.check_expressible(new, "runs/a")


@pytest.mark.parametrize(("x", "y", "flag"), [(0, "no", False), (1, "yes", True)])
def test_several_keys_become_one(tables, x, y, flag):
    assert renamed.renamed_config({"agent": {"x": x, "y": y}}) == {"agent": {"flag": flag}}


@pytest.mark.parametrize("mixed", [{"x": 1, "y": "no"}, {"a": 1.0, "b": 2.0}])
def test_keys_that_became_one_with_values_that_do_not_agree_are_refused(tables, mixed):
    with pytest.raises(CheckpointError, match="cannot do any more"):
        renamed.check_expressible(renamed.renamed_config({"agent": mixed}), "x.pt")


def test_state_is_renamed_by_whole_prefixes(tables):
    state = renamed.renamed_state({"world": {"space.old.mean": 1, "space.older": 2, "gone.x": 3}, "step": {"gone": 4}})
    assert state == {"world": {"space.new.mean": 1, "space.older": 2}, "step": {"gone": 4}}


def test_folders_and_checkpoints_are_translated_when_they_are_read(tables, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(OLD))
    assert read_config(tmp_path)["agent"]["rate"]["most"] == 3.0
    content = {"format": FORMAT, "config": OLD, "world": {"space.old": torch.ones(2)}}
    save(tmp_path / "x.pt", content)
    state = read(tmp_path / "x.pt")
    assert list(state["world"]) == ["space.new"] and "kind" not in state["config"]["agent"]


def test_neither_a_folder_nor_a_checkpoint_with_a_lost_setting_is_continued(tables, tmp_path, monkeypatch):
    lost = {**OLD, "agent": {"kind": "beta"}, "num_envs": 4, "engine": {"name": "toy"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(lost))
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    assert read_config(tmp_path)["agent"] == {"kind": "beta"}, "it can still be plotted"
    with pytest.raises(CheckpointError, match=r"agent\.kind=beta"):
        plan(RunConfig(task={"name": "Toy"}, run_dir=str(tmp_path), checkpoint="auto"))
    save(tmp_path / "x.pt", {"format": FORMAT, "config": lost})
    with pytest.raises(CheckpointError, match=r"agent\.kind=beta"):
        read(tmp_path / "x.pt")


def test_advice_for_a_key_that_was_typed(tables):
    assert renamed.advice("agent.speed.most") == "agent.speed.most is now called agent.rate.most."
    assert "agent.kind=plain did" in renamed.advice("agent.kind")
    assert renamed.advice("agent.x") == "agent.x is now part of agent.flag."
    assert renamed.advice("agent.speedy") == ""
