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

from dima_isaac import make

with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import gymnasium
    from gymnasium_robotics import mamujoco_v1

ENVS, TICKS = 3, 150


@dataclass
class Pair:
    """One tick of ENVS environments, theirs beside ours. ``fresh`` rows are starts."""

    fresh: np.ndarray
    theirs: dict[str, np.ndarray]
    ours: dict[str, np.ndarray]


def factorised(task: Any, conf: str, depth: int, raw: Any) -> Any:
    """Upstream's multi-agent environment around ``raw``; partitions that it has no name for are given node by node."""
    options: dict[str, Any] = {"agent_obsk": depth, "gym_env": raw}
    if conf not in task.partitions:
        parts = [tuple(part) for part in task.graph.parts]
        options["agent_factorization"] = {"partition": parts, "edges": task.graph.edges, "globals": task.graph.roots}
    return mamujoco_v1.parallel_env(scenario=task.scenario, agent_conf=conf, **options)


def single(scenario: str) -> Any:
    """Gymnasium's robot, without time limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gymnasium.make(f"{scenario}-v5").unwrapped


def rollout(scenario: str, raws: list[Any], num_envs: int = ENVS, ticks: int = TICKS) -> Iterator[Pair]:
    """Random play of ``raws`` and of our environment from the same starts; whoever falls starts anew."""
    env = make(scenario, num_envs=num_envs, engine="mujoco", seed=5, precision="float64", episode_length=10**6)
    dims = env.spec.dims
    draws = torch.Generator().manual_seed(1)
    env.reset()
    for i, raw in enumerate(raws):
        raw.reset(seed=i)
    row = env.set_physics_state(*_states(raws))
    yield Pair(np.ones(num_envs, bool), _theirs(raws, [(0.0, False)] * num_envs), _ours(row))
    over = np.zeros(num_envs, bool)
    for _ in range(ticks):
        action = torch.rand(num_envs, dims.agents, dims.action, generator=draws) * 2 - 1
        row = env.step(action)
        outcome = []
        for i, raw in enumerate(raws):
            if over[i]:
                raw.reset()
                outcome.append((0.0, False))
            else:
                _, reward, fallen, *_ = raw.step(raw.action_space.high.astype(str).astype(float) * controls(env.task, action[i]))
                outcome.append((reward, fallen))
        now = env.physics_state()
        for mine, their in zip(now, _states(raws), strict=True):
            np.testing.assert_array_equal(mine[~over], their[~over])
        seen = _ours(row)
        if over.any():
            injected = _ours(env.set_physics_state(*_states(raws)))
            seen["state"][over], seen["obs"][over] = injected["state"][over], injected["obs"][over]
        yield Pair(over, _theirs(raws, outcome), seen)
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
    return {"state": np.stack([raw._get_obs() for raw in raws]), "reward": np.array(rewards), "fallen": np.array(fallen)}


def _ours(row: Any) -> dict[str, np.ndarray]:
    fields = {"state": row.state, "obs": row.obs, "reward": row.reward, "fallen": row.terminal}
    return {name: np.array(value) for name, value in fields.items()}
