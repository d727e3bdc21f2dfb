"""``make``, ``train`` and ``load_policy``: their page and the notebook run, and rows are those of the run folder."""

import json
import re
from pathlib import Path

import pytest

from dima_isaac import train
from dima_isaac.errors import UsageError
from dima_isaac.run import checkpoint
from tests.tools.toy_runs import TOY

DOCS = Path(__file__).resolve().parents[1] / "docs"
SNIPPETS = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(encoding="utf-8"), re.DOTALL)
NOTEBOOK = json.loads((DOCS / "first_steps.ipynb").read_text(encoding="utf-8"))
SMALL = {"task": "Toy", "engine": "toy", "preset": "smoke", "threads": 1, "train.probe_every": 0}


@pytest.fixture
def toy_catalogue(monkeypatch, tmp_path):
    monkeypatch.setenv("DIMA_CONFIG_DIR", TOY[1])
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("code", SNIPPETS, ids=range(len(SNIPPETS)))
def test_the_page_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "onnxruntime" in code:
        pytest.importorskip("onnxruntime")
    names: dict = {}
    exec(compile(code, "docs/python.md", "exec"), names)
    if "best" in names:
        assert names["best"] and names["best"][-1]["env_steps"] == 512
    if "total" in names:
        assert names["total"].mean() > 20.0


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names: dict = {}
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            try:
                exec(compile("".join(cell["source"]), f"first_steps.ipynb {cell['id']}", "exec"), names)
            except UsageError as error:
                if "no offscreen renderer works here" in str(error):
                    pytest.skip("no renderer on this machine")
                raise
    assert names["total"].mean() > 20.0 and len(names["rows"]) > 2 and names["rows"][-1]["env_steps"] == 512


def test_a_mistake_is_raised_at_the_call(toy_catalogue, tmp_path):
    for values, message in (
        ({"task": "Toi"}, "did you mean Toy"),
        ({}, "no task was given"),
        ({**SMALL, "agent.gama": 0.9}, "did you mean agent.gamma"),
        ({**SMALL, "agent.gamma": 2}, "is not between"),
        ({**SMALL, "agent": {"gamma": 2}}, "agent.gamma=2.0 is not between"),
        ({**SMALL, "test": True}, "load_policy"),
    ):
        with pytest.raises(UsageError, match=message):
            train(values)
    assert not list(tmp_path.iterdir())


def test_dictionaries_are_values_like_others():
    train({"task": "pettingzoo", "task.env_args": {"number": 2, "names": ["x y"]}}).close()


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["dima", "sac"])
def test_rows_are_those_of_the_folder_and_nothing_is_printed(algo, toy_catalogue, tmp_path, capsys):
    heard: list = []
    given = list(train(SMALL, algo=algo, run_dir=str(tmp_path / "run"), callbacks=[heard.append]))
    kept = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert given == heard == kept and kept[-1]["env_steps"] == 512
    assert any("eval/return" in row for row in kept) and capsys.readouterr().out == ""


@pytest.mark.slow
def test_what_is_left_early_is_saved_and_continues(toy_catalogue, tmp_path):
    run = train(SMALL, run_dir=str(tmp_path / "run"))
    left = next(row["env_steps"] for row in run if row["env_steps"] >= 128)
    run.close()
    assert checkpoint.read(tmp_path / "run" / "checkpoints" / "last.pt")["env_steps"] == left
    rows = list(train(SMALL, run_dir=str(tmp_path / "run"), checkpoint="auto"))
    assert rows[0]["env_steps"] > left and rows[-1]["env_steps"] == 512
