"""One schema: the dataclasses. YAML and command line may only set what is there."""

import re
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import yaml

from dima_isaac.agent.config import LearnerKind
from dima_isaac.cli.args import OPTIONS, parse
from dima_isaac.cli.compose import compose
from dima_isaac.config import RunConfig, typed
from dima_isaac.errors import UsageError
from dima_isaac.run.catalog import CODE_KEYS, Catalog, engine_config, import_target, task_config
from dima_isaac.schema import as_dict, check_ranges, from_dict, leaves, schema
from tests.toy_config import ToyConfig

ROOT = Path(__file__).resolve().parents[1]
CFG = ROOT / "cfg"
CATALOG = Catalog()


def flat(path: Path) -> dict:
    values = yaml.safe_load(path.read_text())
    return dict(leaves({key: value for key, value in values.items() if key not in ("defaults", "hydra")}))


def test_the_shipped_yaml_equals_the_dataclasses():
    defaults = dict(leaves(RunConfig()))
    for path in (CFG / "config.yaml", CFG / "scale" / "M.yaml", CFG / "preset" / "default.yaml"):
        for key, value in flat(path).items():
            assert defaults[key] == value, f"{path.name}: {key}"


def test_config_yaml_shows_every_key_that_is_not_a_layer():
    layers = ("task", "engine", "world_model", "agent", "replay", "train", "preset", "scale")
    own = {key for key in dict(leaves(RunConfig())) if key.split(".")[0] not in layers}
    assert set(flat(CFG / "config.yaml")) == own


@pytest.mark.parametrize("path", sorted([*(CFG / "preset").glob("*.yaml"), *(CFG / "scale").glob("*.yaml")]))
def test_presets_and_scales_set_only_what_exists(path):
    values = yaml.safe_load(path.read_text())
    assert values.get(path.parent.name) == path.stem, "a block names itself, so that the run's config does"
    typed({key: value for key, value in values.items() if key != "defaults"})


@pytest.mark.parametrize("path", sorted((CFG / "learner").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_published_preset_takes_back_whatever_a_task_sets_of_the_learner(path):
    typed({key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "defaults"})
    own = {key for key in flat(path) if not key.startswith(("num_envs", "agent.sac."))}  # another learner's
    assert own <= set(flat(CFG / "preset" / "paper.yaml"))


def test_the_paper_preset_uses_the_papers_protocol_on_robots_by_default():
    paper = compose(parse("train", ["task=Ant", "preset=paper"]))
    assert (paper.num_envs, paper.task["protocol"]) == (1, "harl") and paper.train.learn.whole_episodes
    other = compose(parse("train", ["task=Ant", "preset=paper", "task.protocol=v5", "num_envs=4"]))
    assert (other.num_envs, other.task["protocol"]) == (4, "v5")
    assert compose(parse("train", ["task=Ant"])).task["protocol"] == "v5"
    assert compose(parse("train", ["task=ShadowHandOver", "preset=paper"])).num_envs == "auto"


@pytest.mark.parametrize(
    ("name", "learner"), [("Walker2d", "sac"), ("Hopper", "sac"), ("Ant", "ppo"), ("HalfCheetah", "ppo")]
)
def test_planar_walkers_learn_from_replay_and_dreams_and_other_robots_from_dreams(name, learner):
    cfg = compose(parse("train", [f"task={name}"]))
    assert cfg.agent.learner is LearnerKind[learner]
    assert cfg.train.learn.horizon == (5 if learner == "sac" else 15)
    assert cfg.agent.sac.critic_steps_per_step == (2 if learner == "sac" else 1)
    paper = compose(parse("train", [f"task={name}", "preset=paper"]))
    assert paper.agent.learner is LearnerKind.ppo and paper.train.learn.horizon == 15


@pytest.mark.parametrize(
    ("name", "rate", "clip"), [("Ant", 0.006, 0.2), ("ManySegmentAnt", 0.006, 0.2), ("Humanoid", 0.0, 0.1)]
)
def test_the_rate_of_ants_follows_the_divergence(name, rate, clip):
    cfg = compose(parse("train", [f"task={name}"]))
    assert (cfg.agent.ppo.desired_kl, cfg.agent.ppo.clip) == (rate, clip) and cfg.agent.learner is LearnerKind.ppo
    assert (cfg.num_envs, cfg.train.learn.rollouts_per_step) == (8, 0.02)
    paper = compose(parse("train", [f"task={name}", "preset=paper"])).agent.ppo
    assert (paper.desired_kl, paper.clip) == (0.0, 0.1)


def test_scales_set_the_same_keys():
    keys = {path.stem: set(flat(path)) for path in (CFG / "scale").glob("*.yaml")}
    assert keys["S"] == keys["M"] == keys["L"]


@pytest.mark.parametrize("name", CATALOG.names("task"))
def test_every_task_file_lists_every_field_and_builds(name):
    """A key that the file lacks could not be set from the command line without importing torch first."""
    values = CATALOG.values("task", name)
    cls = import_target(values["target"])
    config = task_config(values)
    assert set(CATALOG.settable("task", name)) == set(as_dict(cls.Config())), "list every field, or name `config`"
    assert values["name"] == name
    try:
        assert cls(config).spec.episode_length >= 1
    except UsageError as error:  # an adapter that needs the name of what to adapt
        assert f"task={name} needs task." in str(error)


@pytest.mark.parametrize("name", [name for name in CATALOG.names("engine") if name != "auto"])
def test_every_engine_file_fits_its_dataclass(name):
    values = CATALOG.values("engine", name)
    assert values["name"] == name
    engine_config(values)


def unranged(hint: Any) -> bool:
    """Whether a type has a number that no range is declared for."""
    if get_origin(hint) is Annotated and get_args(hint)[0] in (int, float):
        return False
    return hint in (int, float) or any(unranged(inner) for inner in get_args(hint))


ENGINES = [import_target(CATALOG.values("engine", name)["config"]) for name in ("isaacgym", "mujoco", "mujoco_warp")]


OPTION_CLASSES = [cls for cls in OPTIONS.values() if cls]


@pytest.mark.parametrize("cls", [RunConfig, *ENGINES, *OPTION_CLASSES], ids=lambda cls: cls.__name__)
def test_every_number_has_a_range_and_its_default_is_inside(cls):
    assert [key for key, hint in schema(cls) if unranged(hint)] == []
    check_ranges(cls())


@pytest.mark.parametrize("name", CATALOG.names("task"))
def test_a_composed_run_has_every_value_of_its_task(name):
    """Else continuing a run without one of its settings would change that setting silently."""
    run = composed(f"task={name}")
    known = set(as_dict(import_target(run.task["target"]).Config()))
    assert {key for key in run.task if key not in CODE_KEYS} == known


def test_a_number_without_a_range_is_finite():
    with pytest.raises(UsageError, match=r"task\.fence=inf is not between -1_000"):
        from_dict(ToyConfig, {"fence": float("inf")}, "task.")


def test_every_key_has_one_type():
    keys = [key for key, _ in schema(RunConfig)]
    assert len(keys) == len(set(keys)) and "world_model.denoiser.reveal" in keys


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"agent": {"gama": 0.9}}, "gama"),
        ({"agent": {"gamma": 2.0}}, "agent.gamma=2.0 is not between 0.0 and 1.0"),
        ({"num_envs": 0}, "num_envs=0 is not between 1 and 1_048_576"),
        ({"train": {"learn": {"round": 0}}}, "train.learn.round=0 is not at least 1."),
        ({"world_model": {"history": 1_000_000}}, "world_model.history=1000000 is not between 2 and 64"),
        ({"world_model": {"denoiser": {"width": 3}}}, "world_model.denoiser.width=3 is not a multiple of 2"),
        ({"world_model": {"denoiser": {"backbone": "unet"}, "history": 2}}, "history=2: the U-Net takes 3, 7, 11"),
        ({"world_model": {"reward": {"kind": "gpt", "width": 12}}}, "width=12 is not a multiple of 8"),
        ({"train": {"learn": {"dynamics_per_step": -0.1}}}, "train.learn.dynamics_per_step=-0.1 is not between"),
        ({"train": {"learn": {"reward_per_step": float("nan")}}}, "train.learn.reward_per_step=nan is not between"),
        ({"agent": {"actor": {"hidden": [8] * 65}}}, "has 65 entries, not 0 to 64"),
        (
            {"world_model": {"reward": {"kind": "gpt"}}, "train": {"learn": {"horizon": 16}}},
            "horizon=16: the GPT's context is 15 steps",
        ),
        (
            {"train": {"learn": {"dreams": 1, "horizon": 3}}},
            "3 dreamt steps (train.learn.dreams x horizon) do not fill agent.ppo.minibatches",
        ),
        ({"num_envs": "many"}, "num_envs=many: expected a whole number or auto"),
        ({"compile": "perhaps"}, "compile=perhaps: expected True or False or auto"),
        ({"seed": "x"}, "seed"),
        ({"max_env_steps": 0}, "max_env_steps=0"),
        ({"run_dir": "a", "experiment": "b"}, "give one of them"),
        ({"world_model": {"denoiser": {"reveal": "all"}}}, "sequential, cumulative, joint"),
    ],
)
def test_wrong_values_are_one_sentence(values, said):
    with pytest.raises(UsageError) as caught:
        typed(values)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=4_294_967_296", "seed=4294967296 is not between 0 and 4_294_967_295"),
        ("agent.ppo.lr=-1", "agent.ppo.lr=-1.0 is not between 0.0 and 1.0"),
        ("agent.ppo.lam=inf", "agent.ppo.lam=inf is not between 0.0 and 1.0"),
        ("agent.critic.hidden=[8,0]", "agent.critic.hidden[1]=0 is not between 1 and"),
        ("agent.learner=ppp", "did you mean ppo?"),
        ("world_model.denoiser.width=0", "world_model.denoiser.width=0 is not between 2 and"),
        ("world_model.denoiser.steps=1e9", "world_model.denoiser.steps=1000000000 is not between 0 and"),
        ("threads=1000000", "threads=1000000 is not between 1 and 1_024"),
        ("train.learn.reward_per_step=inf", "train.learn.reward_per_step=inf is not between 0.0 and 1_000.0"),
        ("world_model.denoiser.width.x=3", "Keys of world_model.denoiser: world_model.denoiser.reveal,"),
    ],
)
def test_numbers_that_no_layer_can_use_are_refused(word, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        composed(word)


def test_what_may_be_unbounded_is_taken():
    assert composed("world_model.denoiser.optim.clip=inf").world_model.denoiser.optim.clip == float("inf")


@pytest.mark.parametrize("name", ["a\\b", "a\\", "it's", "a\\'b", "a\\\\", "x=(1),[é] $"])
def test_text_values_reach_the_run_unchanged(name):
    assert composed(f"experiment={name}").experiment == name


def composed(*words: str) -> RunConfig:
    return compose(parse("train", ["task=ShadowHandOver", *words]))
