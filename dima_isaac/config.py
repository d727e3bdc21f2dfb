"""The schema of a run: one tree of dataclasses. YAML and the command line may only set its values.

Torch-free, as is every ``config.py``: a wrong key is answered before torch is imported. ``auto`` values are
resolved once, in ``run.resolve``, and stored with their reasons in the run folder's ``config.yaml``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from dima_isaac.agent.config import AgentConfig, LearnerKind
from dima_isaac.errors import UsageError
from dima_isaac.replay.config import ReplayConfig
from dima_isaac.schema import AUTO, All, Count, CountOrZero, Few, Seed, Size, from_dict
from dima_isaac.training.config import TrainConfig
from dima_isaac.world_model.config import GPT_STEPS, Backbone, RewardKind, WorldModelConfig


class Algo(Enum):
    """Who learns."""

    dima = "dima"  # the world model and policies that learn in its dreams
    sac = "sac"  # policies that learn from replay, without a world model
    ppo = "ppo"  # rl-games, one policy for all agents
    mappo = "mappo"  # the same with a central value


class WandbMode(Enum):
    """When Weights & Biases gets its data."""

    offline = "offline"
    online = "online"


@dataclass
class WandbConfig:
    """Weights & Biases, when ``wandb_activate=True``. Trouble with it never stops a run."""

    mode: WandbMode = WandbMode.offline  # offline: written to the run folder, sent later by `wandb sync`; online
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
    algo: Algo = Algo.dima  # dima (world model), sac (none), ppo, mappo (rl-games)
    preset: str = "default"  # named block of values: default, paper, smoke
    scale: str = "M"  # widths of every network: S, M, L
    max_env_steps: Count = 1_000_000  # over all environments
    seed: Seed = 0
    # where
    num_envs: Size | str = AUTO  # over all GPUs
    gpus: Few | All = 1  # of this machine, each with a process and a share of the environments (docs/cluster.md)
    sim_device: str = AUTO  # cpu, cuda:0
    rl_device: str = AUTO
    threads: Few | str = AUTO  # of the learner on the CPU
    headless: bool = True  # False: MuJoCo's window shows training's environments
    torch_deterministic: bool = False
    compile: bool | str = AUTO  # dreams and updates as CUDA graphs; eager on a CPU
    # which run
    experiment: str = ""  # runs/<experiment>/<name>; the task's name if empty
    run_dir: str = ""  # this folder instead
    checkpoint: str = ""  # auto: continue the newest run like this one, or start; latest; a file or run folder
    test: bool = False  # evaluate `checkpoint` instead of training
    # what is recorded
    capture_video: bool = False  # of evaluations
    capture_video_freq: CountOrZero = 0  # environment steps between two videos; 0: one of every evaluation
    capture_video_len: CountOrZero = 0  # control steps of a video; 0: an episode
    tensorboard: bool = False  # rows for TensorBoard, too
    wandb_activate: bool = False
    wandb: WandbConfig = field(default_factory=WandbConfig)
    # the layers
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


FREE = (
    *("max_env_steps", "gpus", "sim_device", "rl_device", "threads", "compile", "headless", "experiment", "run_dir"),
    *("checkpoint", "test", "capture_video", "capture_video_freq", "capture_video_len", "tensorboard"),
    *("wandb_activate", "wandb", "train.eval", "train.checkpoint", "train.probe_every"),
    *("engine.threads", "engine.python", "task.workers", "task.patience", "task.start_patience"),
    *(f"{group}.{key}" for group in ("task", "engine") for key in ("target", "config", "requires")),  # code, not values
)
"""What may differ between a run and its continuation in the same folder."""

_OF_LEARN = ("dynamics", "reward", "decoder", "rollouts", "dream", "horizon", "behaviour_start", "whole_episodes")
_UNREAD = {
    Algo.sac: ("world_model.", "agent.ppo.", *(f"train.learn.{key}" for key in _OF_LEARN)),
    **dict.fromkeys((Algo.ppo, Algo.mappo), ("world_model.", "agent.", "replay.", "train.learn.")),
}
_UNREAD_IN_DREAMS = {
    LearnerKind.ppo: ("agent.sac.", "train.learn.dream_share"),
    LearnerKind.sac: ("agent.ppo.",),
}
_READ_BY_ALL = ("world_model.clip_actions", "world_model.precision", "train.learn.episode")


def is_read(key: str, algo: Algo, learner: LearnerKind) -> bool:
    """Whether ``key`` changes anything with ``algo``, which for ``dima`` has a ``learner``."""
    unread = _UNREAD_IN_DREAMS[learner] if algo is Algo.dima else _UNREAD[algo]
    return key in _READ_BY_ALL or not key.startswith(unread)


def per_rank(cfg: RunConfig, ranks: int) -> RunConfig:
    """What each of ``ranks`` processes does of a resolved ``cfg``: its share of environments, replay and batches.

    Shares of batches are rounded up.
    """
    if ranks == 1:
        return cfg
    learn, sac = cfg.train.learn, cfg.agent.sac
    share = {name: -(-getattr(learn, name) // ranks) for name in ("dynamics_batch", "reward_batch", "dreams")}
    return replace(
        cfg,
        num_envs=int(cfg.num_envs) // ranks,
        replay=replace(cfg.replay, capacity=cfg.replay.capacity // ranks),
        agent=replace(cfg.agent, sac=replace(sac, batch=max(2, -(-sac.batch // ranks)))),
        train=replace(cfg.train, learn=replace(learn, **share)),
    )


def typed(cfg: Mapping[str, Any]) -> RunConfig:
    """The run's configuration as dataclasses, checked against the schema.

    Raises:
        UsageError: a key that does not exist, a value of another type, out of range or at odds with another.
    """
    run = from_dict(RunConfig, cfg)
    if run.algo is Algo.sac:
        run.agent.learner = LearnerKind.sac
    dreamt = run.train.learn.dreams * run.train.learn.horizon
    if dreamt < run.agent.ppo.minibatches:
        raise UsageError(f"{dreamt} dreamt steps (train.learn.dreams x horizon) do not fill agent.ppo.minibatches.")
    world = run.world_model
    if world.denoiser.backbone is Backbone.unet and (world.history + 1) % 4:  # its signal is halved twice
        raise UsageError(f"world_model.history={world.history}: the U-Net takes 3, 7, 11, ...")
    if world.reward.kind is RewardKind.gpt and world.reward.width % 8:  # heads of its attention
        raise UsageError(f"world_model.reward.width={world.reward.width} is not a multiple of 8, as the GPT needs.")
    if world.reward.kind is RewardKind.gpt and run.train.learn.horizon > GPT_STEPS:
        raise UsageError(f"train.learn.horizon={run.train.learn.horizon}: the GPT's context is {GPT_STEPS} steps.")
    if run.run_dir and run.experiment:
        raise UsageError("run_dir names the folder itself and experiment a folder of runs; give one of them.")
    return run
