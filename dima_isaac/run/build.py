"""From a resolved configuration to objects: engine, task and VecEnv; and the process's global state.

Threads, seeds, TF32 and determinism are set here and nowhere else. Code is found only through the catalogue's YAML
files; a run folder or a checkpoint holds data only.
"""

import os
import random
from dataclasses import replace
from numbers import Integral
from typing import Any

import torch

from dima_isaac import ranks
from dima_isaac.config import Algo, RunConfig
from dima_isaac.envs.task import Task
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import UsageError
from dima_isaac.run.catalog import CODE_KEYS, Catalog, engine_config, import_target, task_class, task_config
from dima_isaac.run.resolve import resolve_run
from dima_isaac.schema import Seed, Size, check_range
from dima_isaac.sim.engine import Engine
from dima_isaac.world_model.reveal import steps_for

EVALUATION, HELD_OUT = 1_000_003, 2_000_003
"""Added to a run's seed: starts of its evaluations, and those of the tools, which neither it nor training uses."""


def build_task(cfg: RunConfig) -> Task:
    """The Markov game that ``cfg`` names."""
    task: Task = task_class(cfg.task)(task_config(cfg.task))
    return task


def build_engine(cfg: RunConfig, task: Task, num_envs: int) -> Engine:
    """``num_envs`` copies of the task's scene on the engine of a resolved ``cfg``, or on the task's own engine."""
    if task.own_engine:
        own: Engine = task.build_engine(num_envs)
        return own
    device = {"device": torch.device(cfg.sim_device)} if cfg.engine.get("requires", {}).get("gpu") else {}
    cls = import_target(cfg.engine["target"])
    scene = task.scene()
    scene = replace(scene, variation_seed=ranks.seed(scene.variation_seed))
    engine: Engine = cls(scene, num_envs, engine_config(cfg.engine), **device)
    return engine


def build_env(cfg: RunConfig, num_envs: int, seed: int, episode: int = 0) -> VecEnv:
    """``num_envs`` copies of the task of a resolved ``cfg``; starts of episodes are drawn from ``seed``.

    ``episode`` > 0 cuts them off after so many control steps.
    """
    task = build_task(cfg)
    return VecEnv(build_engine(cfg, task, num_envs), task, seed, torch.device(cfg.rl_device), episode)


def build_env_by_name(
    task: str, num_envs: int, engine: str, seed: int, device: str, overrides: dict[str, Any]
) -> VecEnv:
    """``dima_isaac.make``: an environment from a task's name and values for its configuration."""
    catalog = Catalog()
    for key, value, hint in (("num_envs", num_envs, Size), ("seed", seed, Seed)):
        if not isinstance(value, Integral):
            raise UsageError(f"{key}={value!r}: expected a whole number.")
        check_range(key, int(value), hint)
    num_envs, seed = int(num_envs), int(seed)  # NumPy's integers overflow
    for key in CODE_KEYS & overrides.keys():
        raise UsageError(f"{key} says which code task {task} is, not a value of it; a YAML file of your own can.")
    values = {**catalog.values("task", task), **overrides}
    cfg = RunConfig(values, catalog.values("engine", engine), sim_device=device, rl_device=device)
    return build_env(resolve_run(cfg, catalog)[0], num_envs, seed)


def check_fit(cfg: RunConfig, env: VecEnv) -> None:
    """Check what depends on the task's sizes and observations.

    Raises:
        UsageError: a number of reverse steps by which the agents cannot be revealed equally often, or agents that
            nothing tells apart.
    """
    dims = env.spec.dims
    if cfg.algo is Algo.dima:
        steps_for(dims.agents, cfg.world_model.denoiser.steps, cfg.world_model.denoiser.reveal)
    if cfg.algo in (Algo.dima, Algo.sac) and dims.agents > 1 and not cfg.agent.actor.agent_id:  # rl-games' rows have it
        obs = env.task.observe(torch.rand(1, dims.state, device=env.engine.device))
        if bool((obs == obs[:, :1]).all()):
            raise UsageError(
                f"all {dims.agents} agents of {env.spec.name} observe the same numbers and share one network, so they"
                " would act alike; set agent.actor.agent_id=true, or have the task tell them apart (task.protocol=harl"
                " or task.agent_obsk=0 on robots)."
            )


def set_global_state(cfg: RunConfig) -> None:
    """Threads, seeds, TF32 and determinism of this process, from a resolved ``cfg``."""
    torch.set_num_threads(int(cfg.threads))
    random.seed(cfg.seed)
    torch.manual_seed(cfg.seed)
    torch.set_float32_matmul_precision("highest" if cfg.torch_deterministic else "high")
    if cfg.torch_deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if cfg.rl_device.startswith("cuda"):
        torch.cuda.set_device(cfg.rl_device)  # "cuda" without an index means this GPU, not the first one
