"""The schema of a run: one tree of dataclasses. YAML and the command line may only set its values.

Torch-free, as is every ``config.py``: a wrong key is answered before torch is imported. ``auto`` values are
resolved once, in ``train.build``, and stored with their reasons in the run folder's ``config.yaml``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, get_type_hints

from dima_isaac.agent.config import AgentConfig
from dima_isaac.errors import UsageError
from dima_isaac.replay.config import ReplayConfig
from dima_isaac.train.config import TrainConfig
from dima_isaac.world_model.config import WorldModelConfig

if TYPE_CHECKING:
    from omegaconf import DictConfig

AUTO = "auto"


class Algo(Enum):
    """Who learns."""

    dima = "dima"  # the world model and policies that learn in its dreams
    ppo = "ppo"  # rl-games, one policy for all agents
    mappo = "mappo"  # the same with a central value


@dataclass
class WandbConfig:
    """Weights & Biases, when ``wandb_activate=True``. Trouble with it never stops a run."""

    mode: str = "offline"  # offline: written to the run folder, sent later by `wandb sync`; online
    project: str = "dima-isaac"
    entity: str = ""
    group: str = ""
    name: str = ""


@dataclass
class RunConfig:
    """Everything a run depends on."""

    # what
    task: dict[str, Any] = field(default_factory=dict)  # cfg/task/<name>.yaml: name, target and the task's own values
    engine: dict[str, Any] = field(default_factory=lambda: {"name": AUTO})  # cfg/engine/<name>.yaml
    algo: Algo = Algo.dima  # dima (world model), ppo, mappo (rl-games)
    preset: str = "default"  # named block of values: default, paper, smoke
    scale: str = "M"  # widths of every network: S, M, L
    max_env_steps: int = 1_000_000  # over all environments
    seed: int = 0
    # where
    num_envs: int | str = AUTO
    sim_device: str = AUTO  # cpu, cuda:0
    rl_device: str = AUTO
    threads: int | str = AUTO  # of the learner on the CPU
    headless: bool = True  # False: MuJoCo's window shows training's environments
    torch_deterministic: bool = False
    compile: bool | str = AUTO  # dreams and updates as CUDA graphs (a tape of the same operations on a CPU)
    # which run
    experiment: str = ""  # runs/<experiment>/<name>; the task's name if empty
    run_dir: str = ""  # this folder instead
    checkpoint: str = ""  # auto: continue the newest run like this one, or start; latest; a file or run folder
    test: bool = False  # evaluate `checkpoint` instead of training
    # what is recorded
    capture_video: bool = False
    wandb_activate: bool = False
    wandb: WandbConfig = field(default_factory=WandbConfig)
    # the layers
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


FREE = (
    *("max_env_steps", "sim_device", "rl_device", "threads", "compile", "headless", "experiment", "run_dir"),
    *("checkpoint", "test", "capture_video", "wandb_activate", "wandb", "train.eval", "train.checkpoint"),
    *("train.probe_every", "train.probe_horizon"),
)
"""What may differ between a run and its continuation in the same folder."""

_LAYERS = ("world_model", "agent", "replay", "train")
_SIGNED = ("world_model.denoiser.train_mean", "agent.actor.std_init", "agent.explore.correlation")
"""The only numbers of the layers that may be below 0."""

_AT_LEAST: dict[str, float] = {
    **dict.fromkeys(("num_envs", "max_env_steps", "threads", "replay.capacity", "train.checkpoint.keep"), 1),
    **dict.fromkeys(("world_model.unroll", "agent.epochs", "agent.minibatches"), 1),
    **dict.fromkeys(("train.learn.round", "train.learn.dreams", "train.learn.horizon", "train.eval.episodes"), 1),
    **dict.fromkeys((f"train.learn.{part}_batch" for part in ("dynamics", "reward", "decoder")), 1),
    **dict.fromkeys((f"world_model.{part}.width" for part in ("denoiser", "reward", "decoder")), 1),
    "world_model.history": 2,
    **dict.fromkeys(("agent.actor.hidden", "agent.critic.hidden"), 1),
    "train.probe_horizon": 1,
    "seed": 0,
}
"""Of every other number of the layers, 0."""

MOST_SEED = 2**32 - 1  # what NumPy takes, and with it rl-games
_OPEN_UNIT = ("agent.gamma", "agent.lam")


def typed(cfg: DictConfig | dict[str, Any]) -> RunConfig:
    """Check ``cfg`` against the schema and return plain dataclasses.

    Raises:
        UsageError: a key that does not exist, a value of another type or out of range.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged = OmegaConf.merge(OmegaConf.structured(RunConfig), cfg)
        run = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UsageError(plain(error)) from error
    assert isinstance(run, RunConfig)
    validate(run)
    return run


def validate(run: RunConfig) -> None:
    """Refuse values that have the right type and make no sense.

    Raises:
        UsageError: the first of them.
    """
    values = dict(leaves(run))
    for key in ("num_envs", "threads"):
        if isinstance(values[key], str) and values[key] != AUTO:
            raise UsageError(f"{key}={values[key]} is neither a number nor 'auto'.")
    for key, value in values.items():
        if key in _SIGNED or (key not in _AT_LEAST and key.partition(".")[0] not in _LAYERS):
            continue
        least = _AT_LEAST.get(key, 0)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, (int, float)) and not number >= least:  # nor may it be NaN
                raise UsageError(f"{key}={value} is too small; the least is {least}.")
        if key.endswith("_per_step") and math.isinf(value):
            raise UsageError(f"{key}={value} is not finite.")
    if run.seed > MOST_SEED:
        raise UsageError(f"seed={run.seed} is too large; the most is {MOST_SEED}.")
    if isinstance(run.compile, str) and run.compile != AUTO:
        raise UsageError(f"compile={run.compile} is neither true, false nor 'auto'.")
    for key in _OPEN_UNIT:
        if not 0.0 <= values[key] <= 1.0:
            raise UsageError(f"{key}={values[key]} is not between 0 and 1.")
    dreamt = run.train.learn.dreams * run.train.learn.horizon
    if dreamt < run.agent.minibatches:
        raise UsageError(f"{dreamt} dreamt steps (train.learn.dreams x horizon) do not fill agent.minibatches.")
    if run.wandb.mode not in ("offline", "online"):
        raise UsageError(f"wandb.mode={run.wandb.mode} is neither offline nor online.")
    if run.run_dir and run.experiment:
        raise UsageError("run_dir names the folder itself and experiment a folder of runs; give one of them.")


def plain(error: Exception) -> str:
    """OmegaConf's or hydra's message as one sentence: its first line, the key and what there is to choose from."""
    first = str(error).splitlines()[0].rstrip(".")
    if getattr(error, "options", None):
        first += f"; known: {', '.join(error.options)}"  # type: ignore[attr-defined]
    key = getattr(error, "full_key", None)
    return f"{key}: {first}." if key else f"{first}."


def as_dict(config: Any) -> Any:
    """Dataclasses, enums and lists as YAML's plain values."""
    if is_dataclass(config) and not isinstance(config, type):
        return {item.name: as_dict(getattr(config, item.name)) for item in fields(config)}
    if isinstance(config, Enum):
        return config.name
    if isinstance(config, dict):
        return {key: as_dict(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [as_dict(value) for value in config]
    return config


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its dotted key."""
    items = config if isinstance(config, dict) else as_dict(config)
    for key, value in items.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def schema(cls: type = RunConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key that can be set, with its type; a branch comes before its leaves."""
    hints = get_type_hints(cls)
    for item in fields(cls):
        yield prefix + item.name, hints[item.name]
        if is_dataclass(hints[item.name]):
            yield from schema(hints[item.name], f"{prefix}{item.name}.")
