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
