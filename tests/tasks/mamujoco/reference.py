"""gymnasium-robotics beside our robots: the same starts, the same actions, one rollout per scenario."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.run.catalog import Catalog, import_target
from dima_isaac.sim.config import MujocoConfig
from dima_isaac.sim.mujoco.engine import MujocoEngine
from dima_isaac.tasks.mamujoco.config import FloatType, MamujocoConfig

with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import gymnasium
    from gymnasium_robotics import mamujoco_v1

ENVS, TICKS = 3, 150
GENERATED = ("ManySegmentAnt", "ManySegmentSwimmer")


@dataclass
class Pair:
    """One tick of ENVS environments, theirs beside ours."""

    theirs: dict[str, np.ndarray]
    ours: dict[str, np.ndarray]


def build(scenario: str, conf: str = "", depth: int | str = "full", **values: Any) -> Any:
    """One of our tasks, with float64 tensors and no time limit."""
    cls = import_target(Catalog().values("task", scenario)["target"])
    values = {"precision": FloatType.float64, "episode_length": 10**6, **values}
    return cls(MamujocoConfig(agent_conf=conf, agent_obsk=str(depth), **values))


def vectorise(task: Any, num_envs: int, threads: int = 1, seed: int = 5) -> VecEnv:
    """``task`` on the CPU engine."""
    return VecEnv(MujocoEngine(task.scene(), num_envs, MujocoConfig(threads=threads)), task, seed)


def factorised(task: Any, conf: str, depth: int, raw: Any) -> Any:
    """Upstream's multi-agent environment around ``raw``; partitions that it has no name for are given node by node."""
    options: dict[str, Any] = {"agent_obsk": depth, "gym_env": raw}
    if conf not in task.partitions and task.scenario not in GENERATED:
        parts = [tuple(part) for part in task.graph.parts]
        options["agent_factorization"] = {"partition": parts, "edges": task.graph.edges, "globals": task.graph.roots}
    return mamujoco_v1.parallel_env(scenario=task.scenario, agent_conf=conf, **options)


def single(scenario: str, conf: str = "", **constants: Any) -> Any:
    """Gymnasium's robot, without time limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if scenario in GENERATED:
            return mamujoco_v1.parallel_env(scenario, conf).single_agent_env.unwrapped
        return gymnasium.make(f"{scenario}-v5", **constants).unwrapped


def rollout(task: Any, raws: list[Any], ticks: int = TICKS) -> Iterator[Pair]:
    """Random play of ``raws`` and of ``task`` from the same starts; robots that fall start anew."""
    count = len(raws)
    env = vectorise(task, count, threads=2)
    dims = env.spec.dims
    draws = torch.Generator().manual_seed(1)
    env.reset()
    for i, raw in enumerate(raws):
        raw.reset(seed=i)
    row = env.set_physics_state(*_states(raws))
    yield Pair(_theirs(raws, [(0.0, False)] * count), _ours(row))
    over = np.zeros(count, bool)
    for _ in range(ticks):
        action = torch.rand(count, dims.agents, dims.action, generator=draws) * 2 - 1
        row = env.step(action)
        outcome = []
        for i, raw in enumerate(raws):
            if over[i]:
                raw.reset()
                outcome.append((0.0, False))
                continue
            # the box is float32 and the range float64: 0.4, not 0.4000000059604645
            unit = raw.action_space.high.astype(str).astype(float)
            _, reward, fallen, *_ = raw.step(unit * controls(task, action[i]))
            outcome.append((reward, fallen))
        for mine, their in zip(env.physics_state(), _states(raws), strict=True):
            np.testing.assert_array_equal(mine[~over], their[~over])
        seen = _ours(row)
        if over.any():
            injected = _ours(env.set_physics_state(*_states(raws)))
            seen["state"][over], seen["obs"][over] = injected["state"][over], injected["obs"][over]
        yield Pair(_theirs(raws, outcome), seen)
        over = np.array([fallen for _, fallen in outcome])
    env.close()


def controls(task: Any, action: torch.Tensor) -> np.ndarray:
    """(nu,) in [-1, 1]: an (N, A) joint action in actuator order, by the nodes' own numbers."""
    out = np.full(task.nu, np.nan)
    for agent, part in enumerate(task.graph.parts):
        for slot, node in enumerate(part):
            out[node.act_ids] = float(action[agent, slot])
    return out


def _states(raws: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([raw.data.qpos for raw in raws]), np.stack([raw.data.qvel for raw in raws])


def _theirs(raws: list[Any], outcome: list[tuple[float, bool]]) -> dict[str, np.ndarray]:
    rewards, fallen = zip(*outcome, strict=True)
    states = np.stack([raw._get_obs() for raw in raws])
    return {"state": states, "reward": np.array(rewards), "fallen": np.array(fallen)}


def _ours(row: Any) -> dict[str, np.ndarray]:
    fields = {"state": row.state, "obs": row.obs, "reward": row.reward, "fallen": row.terminal}
    return {name: np.array(value) for name, value in fields.items()}
