"""Where tasks and engines are found, and the code that their YAML names."""

from pathlib import Path

import pytest

from dima_isaac.cli import main as cli
from dima_isaac.errors import UsageError
from dima_isaac.run import build, catalog
from dima_isaac.run.catalog import Catalog, import_target


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("os.system", "not of the form"),
        ("dima_isaac.nowhere:Task", "no module dima_isaac.nowhere"),
        ("dima_isaac.errors:Nothing", "has no class Nothing"),
        ("os:getcwd", "os has no class getcwd"),
        ("own_raises:Task", r"own_raises:Task' cannot be imported: ValueError: two lines \(.*own_raises.py, line 2\)"),
        ("own_exits:Task", "cannot be imported: SystemExit: 0"),
        ("own_typo:Task", r"cannot be imported: SyntaxError: .*own_typo.py, line 1\)\.$"),
    ],
)
def test_targets(target, said, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_raises.py").write_text("x = 1\nraise ValueError('two\\nlines')\n")
    (tmp_path / "own_exits.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "own_typo.py").write_text("class Task(:\n")
    with pytest.raises(UsageError, match=said):
        import_target(target)


def test_a_file_with_a_name_of_ours_is_refused(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "Ant.yaml").write_text("name: Ant\ntarget: tests.toy_plugin:Toy\n")
    with pytest.raises(UsageError, match=r"task/Ant\.yaml has the name of one of ours"):
        Catalog(str(tmp_path))


def test_make_finds_the_tasks_of_the_folder_that_the_environment_names(monkeypatch):
    with pytest.raises(UsageError, match="unknown task 'Toy'"):
        build.build_env_by_name("Toy", 2, "toy", 0, "cpu", {})
    monkeypatch.setenv("DIMA_CONFIG_DIR", str(Path(__file__).resolve().parents[1] / "cfg"))
    assert build.build_env_by_name("Toy", 2, "toy", 0, "cpu", {}).num_envs == 2
    monkeypatch.setenv("DIMA_CONFIG_DIR", "nowhere")
    with pytest.raises(UsageError, match="DIMA_CONFIG_DIR"):
        build.build_env_by_name("Toy", 2, "toy", 0, "cpu", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "must hold key: value lines"),
        (b"\xff\xfe\x00\x80", "is not a text file in UTF-8"),
        (b"target: tests.toy_plugin:Toy", "needs a line 'name: Own'"),
        (b"name: Own\nfence: 1.0", "needs a line 'target: package.module:Class'"),
        (b"name: Toy\ntarget: tests.toy_plugin:Toy", "says 'name: Toy'; a task is called by its file: 'name: Own'"),
        (b"name: Own\ntarget: 3", "needs a line 'target: package.module:Class'"),
        (b"name: Own\ntarget: tests.toy_plugin:Toy\nfence: !metres 3", "Own.yaml is not YAML: could not determine"),
        (b"name: Own\ntarget: tests.toy_plugin:Toy\nday: 2001-99-99", "Own.yaml is not YAML: month must be in"),
        (b"name: Own\ntarget: tests.toy_plugin:ToyPhysics", "'tests.toy_plugin:ToyPhysics' is not a Task with"),
        (b"name: Own\ntarget: tests.toy:ToyTask", "'tests.toy:ToyTask' is not a Task with a dataclass Config"),
        (
            b"name: Own\ntarget: tests.toy_plugin:Toy\nconfig: tests.toy:ToyTask",
            "'tests.toy:ToyTask' is not a dataclass",
        ),
    ],
)
def test_a_task_author_s_broken_yaml_is_one_sentence(text, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "cfg" / "task" / "Own.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(text)
    assert cli.main(["train", "--config-dir", "cfg", "task=Own", "preset=smoke"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and said in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cfg"]


def test_a_broken_preset_is_one_sentence(tmp_path, capsys):
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "own.yaml").write_text("seed: [1")
    assert cli.main(["train", "--config-dir", str(tmp_path), "task=HalfCheetah", "preset=own"]) == 2
    assert "own.yaml is not YAML" in capsys.readouterr().err


def test_code_that_is_not_the_package_s_is_named():
    assert catalog.described({"name": "Toy", "target": "tests.toy_plugin:Toy"}) == "Toy  (runs tests.toy_plugin:Toy)"
    assert catalog.described({"name": "Ant", "target": "dima_isaac.tasks.mamujoco.ant:Ant"}) == "Ant"
