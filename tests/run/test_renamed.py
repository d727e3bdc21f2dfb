"""Runs stored under earlier names are read under today's."""

import pytest
import torch
import yaml

from dima_isaac.config import RunConfig
from dima_isaac.errors import CheckpointError
from dima_isaac.run import renamed
from dima_isaac.run.checkpoint import FORMAT, read, save
from dima_isaac.run.folder import plan, read_config
from dima_isaac.schema import as_dict, leaves, schema

OLD = {
    "task": {"name": "Toy"},
    "agent": {"speed": {"most": 3.0, "least": 0.0}, "kind": "plain", "beta": 0.5},
    "seed": 4,
}


@pytest.fixture
def tables(monkeypatch):
    """A history of renamings."""
    monkeypatch.setattr(renamed, "RENAMED", {"agent.speed": "agent.rate", "agent.beta": "agent.rate.decay"})
    monkeypatch.setattr(renamed, "DROPPED", {"agent.kind": ("plain", "usual")})
    monkeypatch.setattr(renamed, "STATE", {"world": {"space.old": "space.new", "gone": None}})


def test_every_entry_leads_to_a_key_of_today_and_none_starts_at_one():
    today = dict(schema(RunConfig))
    free = ("task.", "engine.")
    assert all(new in today or new.startswith(free) for new in renamed.RENAMED.values())
    assert not [old for old in (*renamed.RENAMED, *renamed.DROPPED) if old in today]


def test_a_configuration_of_today_is_left_alone():
    config = as_dict(RunConfig(task={"name": "Toy"}))
    assert renamed.renamed_config(config) == config


def test_an_echo_of_the_first_release_is_read():
    assert dict(leaves(renamed.renamed_config({"world_model": {"exact_echo": False}}))) == {
        "world_model.copy_last_action": False
    }
    state = renamed.renamed_state({"world": {"space.relevance": 1, "space.state.mean": 2}, "env_steps": 3})
    assert state == {"world": {"space.value_weights": 1, "space.state.mean": 2}, "env_steps": 3}


def test_leaves_and_branches_move_and_dropped_keys_go(tables):
    new = renamed.renamed_config(OLD)
    assert new["agent"] == {"rate": {"most": 3.0, "least": 0.0, "decay": 0.5}} and new["seed"] == 4
    assert OLD["agent"]["kind"] == "plain", "the caller's copy is untouched"
    renamed.check_dropped(new, "run")


def test_a_value_that_cannot_be_expressed_is_refused(tables):
    new = renamed.renamed_config({"agent": {"kind": "beta"}})
    with pytest.raises(CheckpointError, match=r"runs/a was made with agent\.kind=beta,.* does what plain or"):
        renamed.check_dropped(new, "runs/a")


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
    lost = {**OLD, "agent": {"kind": "beta"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(lost))
    assert read_config(tmp_path)["agent"] == {"kind": "beta"}, "it can still be plotted"
    with pytest.raises(CheckpointError, match=r"agent\.kind=beta"):
        plan(RunConfig(task={"name": "Toy"}, run_dir=str(tmp_path), checkpoint="auto"))
    save(tmp_path / "x.pt", {"format": FORMAT, "config": lost})
    with pytest.raises(CheckpointError, match=r"agent\.kind=beta"):
        read(tmp_path / "x.pt")


def test_advice_for_a_key_that_was_typed(tables):
    assert renamed.advice("agent.speed.most") == "agent.speed.most is now called agent.rate.most."
    assert "agent.kind=plain did" in renamed.advice("agent.kind")
    assert renamed.advice("agent.speedy") == ""
