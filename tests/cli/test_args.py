"""One grammar for every command: each mistake is one sentence that names the cure."""

from pathlib import Path

import pytest

from dima_isaac.bench.config import Suite
from dima_isaac.cli.args import OPTIONS, parse
from dima_isaac.cli.help import usage
from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError
from dima_isaac.run.catalog import Catalog
from dima_isaac.tools.config import Agent, references


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setenv("DIMA_CONFIG_DIR", str(Path(__file__).resolve().parents[1] / "cfg"))


def test_words_become_typed_values():
    cfg = parse("bench", ["suite=imagine", "task=Toy", "seconds=1e1", "batch=1_000", "num_envs=auto"]).options
    assert (cfg.suite, cfg.task, cfg.seconds, cfg.batch, cfg.num_envs) == (Suite.imagine, "Toy", 10.0, 1000, "auto")


def test_what_belongs_to_the_run_is_passed_on():
    args = parse("play", ["task=Toy", "agent=zero", "seed=3", "task.fence=2", "world_model.history=4"])
    assert args.overrides == ["task=Toy", "seed=3", "++task.fence=2", "world_model.history=4"]
    assert args.options.agent is Agent.zero and args.options.seed == 3


def test_a_checkpoint_may_be_looked_at_under_other_physics():
    args = parse("evaluate", ["checkpoint=x", "task.fence=2", "engine.drag=0", "engine=toy"])
    assert args.changes == {"task.fence": "2", "engine.drag": "0"}


@pytest.mark.parametrize(
    ("tool", "words", "said"),
    [
        ("play", ["chekpoint=x"], "did you mean checkpoint?"),
        ("play", ["task=Toy"], "needs agent=zero or agent=random"),
        ("play", [], "checkpoint=RUN|FILE|latest is missing, or task=NAME"),
        ("play", ["task=Toy", "agent=zer0"], "did you mean zero?"),
        ("play", ["task=Toy", "agent=zero", "width=1"], "width=1 is not between 16 and 8_192"),
        ("play", ["task=Toy", "agent=zero", "headless=maybe"], "expected True or False"),
        ("evaluate", ["checkpoint=x", "episodes=0"], "episodes=0 is not between 1 and"),
        ("evaluate", ["checkpoint=x", "seed=1e12"], "seed=1000000000000 is not between 0 and"),
        ("evaluate", ["checkpoint=x", "episodes=few"], "episodes=few: expected a whole number"),
        ("evaluate", ["checkpoint=x", "episodes=1.5"], "expected a whole number"),
        ("play", ["checkpoint=x", "run_dir=y"], "run_dir of a checkpoint's run cannot be changed. Keys of play:"),
        (
            "evaluate",
            ["checkpoint=x", "worldmodel.history=3"],
            "unknown key 'worldmodel.history'. Keys of evaluate: checkpoint,",
        ),
        ("plot", ["runs/x", "run_dir=y"], "unknown key 'run_dir'. Keys of plot: checkpoint,"),
        ("evaluate", ["checkpoint=x", "world_model.history=3"], "world_model.history of a checkpoint's run cannot be"),
        ("evaluate", ["x"], "'x' is not of the form key=value"),
        ("plot", [], "plot needs at least one run folder"),
        ("plot", ["open_loop=True"], "open_loop=True needs checkpoint=RUN|FILE"),
        ("plot", ["run", "x=time"], "Known: both, env_steps, wall_time"),
        ("plot", ["runs=a,b"], "plot.py a b"),
        ("plot", ["run", "num_env=3"], "did you mean num_envs?"),
        ("plot", ["run", "reference=3"], "'3' is not of the form name:value"),
        ("plot", ["run", "reference=a:1,:3"], "':3' is not of the form name:value"),
        ("plot", ["run", "reference=a:nan"], "'a:nan' is not of the form name:value"),
        ("plot", ["run", "reference=untrained"], "'untrained' is not of the form name:value"),
        ("bench", ["suite=enginee"], "did you mean engine?"),
        ("bench", ["--suite=engine"], "without dashes: suite=engine"),
        ("play", ["--task", "Toy"], "without dashes: task=Toy"),
        ("play", ["-m", "checkpoint=x"], "-m is for train only"),
        ("train", ["--config-dir"], "--config-dir needs a folder"),
        ("bench", ["batch=0"], "batch=0 is not between 1 and"),
    ],
)
def test_mistakes_are_named(tool, words, said):
    with pytest.raises(UsageError) as caught:
        parse(tool, words)
    assert said in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize("command", OPTIONS)
def test_help_lists_every_key(command):
    from dataclasses import fields

    text = usage(command, Catalog())
    assert all(f"  {item.name}=" in text for item in fields(OPTIONS[command] or RunConfig) if item.name != "runs")
    assert parse(command, ["--help"]).help


def test_references_are_names_and_values():
    assert references("untrained:3.3,MAPPO: a:3.6") == [("untrained", 3.3), ("MAPPO: a", 3.6)]
