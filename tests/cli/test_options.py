"""The grammar of play, evaluate, plot and bench: every mistake is one sentence that names the cure."""

import pytest

from dima_isaac.bench.config import Suite
from dima_isaac.cli.options import TOOLS, parse, usage
from dima_isaac.errors import UsageError
from dima_isaac.tools.config import Agent, references


def test_words_become_typed_values():
    cfg = parse("bench", ["suite=imagine", "task=Toy", "seconds=1e1", "batch=1_000", "num_envs=auto"]).cfg
    assert (cfg.suite, cfg.task, cfg.seconds, cfg.batch, cfg.num_envs) == (Suite.imagine, "Toy", 10.0, 1000, "auto")


def test_what_belongs_to_the_run_is_passed_on():
    asked = parse("play", ["task=Toy", "agent=zero", "seed=3", "task.fence=2", "world_model.history=4"])
    assert asked.overrides == ["task=Toy", "seed=3", "task.fence=2", "world_model.history=4"]
    assert asked.cfg.agent is Agent.zero and asked.cfg.seed == 3


def test_a_checkpoint_may_be_looked_at_under_other_physics():
    asked = parse("evaluate", ["checkpoint=x", "task.fence=2", "engine.drag=0", "engine=toy"])
    assert asked.changes == {"task.fence": "2", "engine.drag": "0"}


@pytest.mark.parametrize(
    ("tool", "words", "said"),
    [
        ("play", ["chekpoint=x"], "did you mean checkpoint?"),
        ("play", ["task=Toy"], "needs agent=zero or agent=random"),
        ("play", [], "play needs checkpoint=RUN|FILE|latest"),
        ("play", ["task=Toy", "agent=zer0"], "did you mean zero?"),
        ("play", ["task=Toy", "agent=zero", "width=1"], "width=1 is too small; the least is 16"),
        ("play", ["task=Toy", "agent=zero", "headless=maybe"], "expected True or False"),
        ("evaluate", ["checkpoint=x", "episodes=0"], "episodes=0 is too small"),
        ("evaluate", ["checkpoint=x", "seed=1e12"], "seed=1000000000000 is not between 0 and"),
        ("evaluate", ["checkpoint=x", "episodes=few"], "episodes=few: expected a number"),
        ("evaluate", ["checkpoint=x", "episodes=1.5"], "expected a whole number"),
        ("play", ["checkpoint=x", "run_dir=y"], "run_dir of a checkpoint's run cannot be changed. Keys of play:"),
        ("evaluate", ["checkpoint=x", "worldmodel.history=3"], "unknown key 'worldmodel.history' of evaluate"),
        ("plot", ["runs/x", "run_dir=y"], "unknown key 'run_dir' of plot. Keys: checkpoint,"),
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
        ("bench", ["batch=0"], "batch=0 is too small"),
    ],
)
def test_mistakes_are_named(tool, words, said):
    with pytest.raises(UsageError) as caught:
        parse(tool, words)
    assert said in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize("tool", TOOLS)
def test_help_lists_every_key(tool):
    from dataclasses import fields

    text = usage(tool)
    assert all(f"  {item.name}=" in text for item in fields(TOOLS[tool][0]) if item.name != "runs")
    assert parse(tool, ["--help"]).help


def test_references_are_names_and_values():
    assert references("untrained:3.3,MAPPO: a:3.6") == [("untrained", 3.3), ("MAPPO: a", 3.6)]
