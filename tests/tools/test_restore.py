"""A checkpoint is data."""

import pytest

from tests.tools.toy_runs import TOY


@pytest.mark.slow
def test_a_checkpoint_brings_no_code_along(runs, tmp_path):
    """Whatever target a file names, the catalogue's is used."""
    from dima_isaac.run import checkpoint, sealed
    from dima_isaac.run.catalog import Catalog
    from dima_isaac.tools.config import EvaluateConfig
    from dima_isaac.tools.restore import restore

    state = checkpoint.read(runs / "0" / "checkpoints" / "last.pt")
    state["config"]["task"]["target"] = "os:system"
    state["config"]["engine"]["target"] = "os:system"
    sealed.save(tmp_path / "evil.pt", state)
    restored = restore(EvaluateConfig(checkpoint=str(tmp_path / "evil.pt"), threads=1), Catalog(TOY[1]))
    assert restored.cfg.task["target"] == "tests.toy_plugin:Toy"
    assert restored.cfg.engine["target"] == "tests.toy_plugin:ToyPhysics"


@pytest.mark.slow
def test_a_checkpoint_of_an_engine_that_is_not_here_is_shown_on_another(runs, tmp_path, monkeypatch, capsys):
    from dima_isaac.run import checkpoint, sealed
    from dima_isaac.run.catalog import Catalog
    from dima_isaac.tools.config import EvaluateConfig
    from dima_isaac.tools.restore import restore

    monkeypatch.delenv("DIMA_ISAACGYM_PYTHON", raising=False)
    state = checkpoint.read(runs / "0" / "checkpoints" / "last.pt")
    state["config"]["engine"] = {"name": "isaacgym", "pipeline": "cpu"}
    sealed.save(tmp_path / "elsewhere.pt", state)
    cfg = EvaluateConfig(checkpoint=str(tmp_path / "elsewhere.pt"), threads=1, sim_device="cpu")
    assert restore(cfg, Catalog(TOY[1])).cfg.engine["name"] == "mujoco"
    assert "isaacgym, which this was made with, needs DIMA_ISAACGYM_PYTHON" in capsys.readouterr().out
