"""What the studies in scripts/ share: their command line, a run's replay in parts, and fitting a model to one."""

from __future__ import annotations

import copy
import re
import time

import torch
from torch import Tensor

from dima_isaac.agent.ppo import ActorCritic
from dima_isaac.errors import UsageError
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.train import probes
from dima_isaac.types import Window
from dima_isaac.world_model.world_model import WorldModel


def asked(words: list[str], doc: str | None, usage: str) -> dict[str, str] | None:
    """``key=value`` words as a dictionary; None after printing ``doc`` because --help was among them.

    Raises:
        UsageError: a key that ``usage`` does not name, or no ``checkpoint``; the message is ``usage``.
    """
    if {"--help", "-h"} & set(words):
        print(doc)
        return None
    given = dict(word.partition("=")[::2] for word in words)
    if set(given) - set(re.findall(r"(\w+)=", usage)) or "checkpoint" not in given:
        raise UsageError(f"write: {usage}")
    return given


def part(replay: ReplayBuffer, envs: slice) -> ReplayBuffer:
    """The rows of some environments."""
    out = copy.copy(replay)
    for name in replay._columns:
        setattr(out, name, getattr(replay, name)[:, envs].contiguous())
    out.num_envs, out._generator = out.state.shape[1], torch.Generator(replay.device).manual_seed(7)
    return out


def windows(held: ReplayBuffer, length: int, most: int = 0) -> Window:
    """Every whole window of ``length`` rows, or about ``most`` of them, evenly spread."""
    age, env = torch.meshgrid(torch.arange(held.size - length), torch.arange(held.num_envs), indexing="ij")
    all_of_them = held.gather(age.flatten(), env.flatten(), length)
    whole = all_of_them.valid[:, 0].nonzero().squeeze(1)
    kept = whole[:: max(1, whole.shape[0] // most)] if most else whole
    return Window(**{name: column[kept] for name, column in vars(all_of_them).items()})


def fit(world: WorldModel, agent: ActorCritic, train: ReplayBuffer, held: ReplayBuffer, updates: int,
        batch: int) -> float:  # fmt: skip
    """Fit fresh dynamics to ``train``, calibrated on ``held`` as between two rounds of training; thread seconds."""
    world.track(train.state[: train.size])
    started = time.thread_time()
    for update in range(updates):
        world.update_dynamics(train.sample(batch, world.window))
        if update and update % 100 == 0:
            seen = train.sample(1000, 1)
            world.weigh_by_value(agent.value_gradient(world.normalise(seen.state[:, 0]), seen.action[:, 0]))
            world.update_held_out(held.sample(400, world.history + 1))
    return time.thread_time() - started


def dreamt(world: WorldModel, window: Window, steps: int) -> Tensor:
    """z (M, steps + 1, D) from the first ``history`` rows of ``window``, under the actions taken."""
    h, rng = world.history, torch.Generator(window.state.device).manual_seed(0)
    return probes._dream(world, world.context(probes._rows(window, 0, h)), window.action[:, h - 1 :], steps, rng)


def linear(model: probes.LinearModel, start: Tensor, action: Tensor) -> Tensor:
    """z (M, H + 1, D) from z ``start`` (M, D) under ``action`` (M, H, N, A)."""
    out = [start]
    for now in action.unbind(1):
        out.append(model(out[-1], now).clamp(-10.0, 10.0))
    return torch.stack(out, 1)
