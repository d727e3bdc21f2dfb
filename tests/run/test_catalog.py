"""Where tasks and engines are found, and the code that their YAML names."""

from pathlib import Path

import pytest

from dima_isaac.errors import UsageError
from dima_isaac.run import build
from dima_isaac.run.catalog import import_target


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("os.system", "not of the form"),
        ("dima_isaac.nowhere:Task", "no module dima_isaac.nowhere"),
        ("dima_isaac.errors:Nothing", "has no Nothing"),
    ],
)
def test_targets(target, said):
    with pytest.raises(UsageError, match=said):
        import_target(target)


def test_make_finds_the_tasks_of_the_folder_that_the_environment_names(monkeypatch):
    with pytest.raises(UsageError, match="unknown task 'Toy'"):
        build.build_env_by_name("Toy", 2, "toy", 0, "cpu", {})
    monkeypatch.setenv("DIMA_CONFIG_DIR", str(Path(__file__).resolve().parents[1] / "cfg"))
    assert build.build_env_by_name("Toy", 2, "toy", 0, "cpu", {}).num_envs == 2
    monkeypatch.setenv("DIMA_CONFIG_DIR", "nowhere")
    with pytest.raises(UsageError, match="DIMA_CONFIG_DIR"):
        build.build_env_by_name("Toy", 2, "toy", 0, "cpu", {})
