"""One grammar for every command: each mistake is one sentence that names the cure."""

import itertools
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
        ("play", [], "checkpoint=RUN|FILE|zoo:NAME|latest is missing, or task=NAME"),
        ("play", ["task=Toy", "agent=zer0"], "did you mean zero?"),
        ("play", ["task=Toy", "agent=zero", "width=1"], "width=1 is not between 16 and 8_192"),
        ("play", ["task=Toy", "agent=zero", "headless=maybe"], "expected True or False"),
        ("evaluate", ["checkpoint=x", "episodes=0"], "episodes=0 is not at least 1."),
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
        ("train", ["=3"], "'=3' is not of the form key=value"),
        ("train", ["-x", "run_dir=r"], "without dashes: x=True"),
        ("train", ["seed=18446744073709551615"], "seed=18446744073709551615 is not between 0 and"),
        ("train", ["~experiment"], "'~experiment' takes a setting away, and a run needs all; leave it out"),
        ("train", ["~train.eval.every=5"], "takes a setting away"),
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


def overrides(*words: str) -> list[str]:
    return parse("train", list(words)).overrides


def test_numbers_and_booleans_as_people_write_them():
    assert overrides("max_env_steps=1e6", "headless=True", "num_envs=4_096", "agent.gamma=0.96") == [
        "max_env_steps=1000000",
        "headless=True",
        "num_envs=4096",
        "agent.gamma=0.96",
    ]


def test_paths_survive_hydra_s_grammar():
    assert overrides("run_dir=/a b/c=d,(e)") == ["run_dir='/a b/c=d,(e)'"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=Toi"], "unknown task 'Toi'; did you mean Toy"),
        (["engine=mjoco"], "did you mean mujoco"),
        (["preset=papr"], "did you mean paper"),
        (["scale=XL"], "unknown scale 'XL'"),
        (["algo=happo"], "unknown value of algo"),
        (["task=Toy", "task.fense=1"], "did you mean task.fence?"),
        (["task=Toy", "task.fence=high"], "task.fence=high: expected a number"),
        (["task.fence=1"], "needs a task: task=NAME"),
        (["engine=toy", "engine.dragg=1"], "did you mean engine.drag?"),
        (["sead=1"], "did you mean seed"),
        (["task=Toy", "fence=1"], "unknown key 'fence'; did you mean task.fence"),
        (["engine=toy", "drag=1"], "unknown key 'drag'; did you mean engine.drag"),
        (["lr=1"], "did you mean agent.ppo.lr or"),
        (["world_model.denoiser.revel=joint"], "did you mean world_model.denoiser.reveal"),
        (["world_model.denoiser.reveal=all"], "cumulative, joint, sequential"),
        (["max_iterations=5"], "max_env_steps"),
        (["seed=1.5"], "seed=1.5: expected a whole number"),
        (["headless=maybe"], "expected True or False"),
        (["agent=3"], "is a group of keys"),
        (["--task=Toy"], "without dashes: task=Toy"),
        (["--num_envs", "64"], "num_envs=64"),
        (["--headless"], "headless"),
        (["Toy"], "not of the form key=value"),
        (["seed=1,2"], "seed=1,2 names several values; -m makes a run of each"),
        (["task=Toy,Ant"], "task=Toy,Ant names several; -m makes a run of each"),
        (["multi_gpu=True"], "here it is gpus=all"),
        (["world_model.exact_echo=True"], "is now called world_model.copy_last_action"),
        (["agent.explore.share=0.3"], "is now part of agent.explore.max_std"),
        (["train.probe_horizon=5"], "no longer exists. Keys of train: train.learn,"),
    ],
)
def test_typing_errors_name_the_cure(words, said):
    with pytest.raises(UsageError) as caught:
        overrides(*words)
    assert said in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_garbage_never_becomes_a_traceback():
    """Whatever is typed, the answer is a list of overrides or a UsageError."""
    keys = (
        "task",
        "engine.threads",
        "agent.gamma",
        "seed",
        "",
        ".",
        "+x",
        "~task",
        "hydra.x",
        "task.",
        "a.b.c",
        "wandb",
    )
    values = ("", "1", "nan", "[1", "{", "'", "$x", "a,b", "None", "1e99", "../..", "é")
    for key, value in itertools.product(keys, values):
        try:
            overrides(f"{key}={value}")
        except UsageError as error:
            assert str(error)


def test_a_task_without_a_checkpoint_is_the_zoo_s_best_policy_for_it(monkeypatch):
    monkeypatch.setattr("dima_isaac.run.zoo.best", {"ShadowHandOver": "Over2"}.get)
    args = parse("play", ["task=ShadowHandOver", "task.profile=compat", "num_envs=2"])
    assert args.options.checkpoint == "zoo:Over2" and args.changes == {"task.profile": "compat"}
    assert parse("evaluate", ["task=ShadowHandOver", "agent=zero"]).options.checkpoint == ""
    assert parse("evaluate", ["task=ShadowHandOver", "checkpoint=runs/x"]).options.checkpoint == "runs/x"


def test_keys_that_an_algorithm_reads_pass():
    for words in (
        ["algo=sac", "agent.gamma=0.9"],
        ["algo=ppo", "world_model.clip_actions=false"],
        ["agent.learner=ppo"],
    ):
        assert len(overrides("task=Toy", *words)) == 1 + len(words)
