"""The effect of a push in the simulator and in a dream: how well the world model predicts the effects of actions.

From states of held-out episodes the policy's actions are taken as they are, and again with one agent's moved by a
random push that is held. The difference is what the push changes: of the reward summed since, and of where the free
objects are, or of z in a task without any.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dima_isaac.agent.returns import survival
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.training.probes import Draw, physical, record
from dima_isaac.world_model.imagine import predict_states
from dima_isaac.world_model.world_model import Context, WorldModel

PUSH = 0.5  # added to each number of an agent's action, or taken from it
HELD = (5, 10, 20)  # steps that a push is held, and after which outcomes are compared, as far as a world model predicts
STARTS, FIRST, LAST = 10, 10, 300  # so many states of every environment, between these steps of its episodes


@dataclass
class Pushes:
    """Dreamt against true changes, over pushes, after each of ``HELD``."""

    held: Tensor  # (H,) those of ``HELD``
    reward: Tensor  # (H,) their correlation
    place: Tensor  # (H,) that of free objects' positions, or of z
    reward_size: Tensor  # (H,) root-mean-square of the dreamt ones over that of the true ones
    place_size: Tensor  # (H,)
    number: Tensor  # (H,) pushes whose reward was compared


@dataclass
class Outcome:
    """The results of B sequences of actions, by step."""

    reward: Tensor  # (B, T) summed so far
    place: Tensor  # (B, T, K) where the free objects are, or z
    known: Tensor  # (B, T) bool: nothing but the task has ended the episode
    running: Tensor  # (B, T) bool: the step was taken in the episode, so the place is one of it

    def __sub__(self, other: "Outcome") -> "Outcome":
        known, running = self.known & other.known, self.running & other.running
        return Outcome(self.reward - other.reward, self.place - other.place, known, running)


@torch.no_grad()
def pushes(world: WorldModel, env: VecEnv, draw: Draw, episode: int, seed: int) -> Pushes:
    """Push each agent from ``STARTS`` states of every environment, of episodes from number ``episode`` on.

    A dream and its pushed twin draw the same noise.
    """
    generator = torch.Generator(env.device).manual_seed(seed)
    newest, envs = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device), torch.arange(env.num_envs)
    held = torch.tensor([steps for steps in HELD if steps <= world.longest])
    place, last = _place(world, env), min(LAST, env.spec.episode_length - max(HELD))
    found: list[tuple[Outcome, Outcome]] = []
    for n, ticks in enumerate(torch.linspace(FIRST, max(FIRST, last), STARTS).long().tolist()):
        kept = record(env, draw, episode + n, max(ticks, world.history), seed)
        window = kept.gather(newest, envs.to(env.device), world.history)
        start, running, context = copy.deepcopy(env.state_dict()), ~window.last[:, -1], world.context(window)
        taken = [window.action[:, -1]]
        for _ in range(int(held[-1]) - 1):
            taken.append(draw(env.step(taken[-1]).obs, generator)[0].clamp(-1.0, 1.0))
        base = torch.stack(taken, 1)  # (E, T, N, A)
        true, dreamt = _simulate(env, start, running, base, place), _dream(world, context, base, place, seed + n)
        for agent in range(env.spec.dims.agents):
            sign = torch.randint(2, base[:, :1, agent].shape, device=env.device, generator=generator) * 2.0 - 1.0
            moved = base.clone()
            moved[:, :, agent] = (moved[:, :, agent] + PUSH * sign).clamp(-1.0, 1.0)
            pushed = _simulate(env, start, running, moved, place)
            found.append((pushed - true, _dream(world, context, moved, place, seed + n) - dreamt))
    true, dreamt = (_joined(outcomes, held - 1) for outcomes in zip(*found, strict=True))
    reward, reward_size = _compare(true.reward.unsqueeze(-1), dreamt.reward.unsqueeze(-1), true.known)
    where, place_size = _compare(true.place, dreamt.place, true.running)
    return Pushes(held, reward, where, reward_size, place_size, true.known.sum(0))


def _place(world: WorldModel, env: VecEnv) -> Callable[[Tensor], Tensor]:
    """What of a state (..., D) is compared, (..., K)."""
    objects, counted = env.spec.object_columns, physical(env.spec, env.device)
    if objects is not None:
        return lambda state: state[..., objects.flatten()]
    return lambda state: world.target.z(state) * counted


def _simulate(env: VecEnv, start: dict, running: Tensor, actions: Tensor, place: Callable[[Tensor], Tensor]) -> Outcome:
    """Take ``actions`` (E, T, N, A) in the simulator from ``start``, where episodes are ``running`` (E,)."""
    env.load_state_dict(start)
    known, reward, rows = running, torch.zeros(env.num_envs, device=actions.device), []
    for action in actions.unbind(1):
        step = env.step(action)
        known, running = known & ~(running & step.first), running & ~step.first
        reward = reward + step.reward * running
        rows.append((reward, place(step.state), known, running))
        known, running = known & ~(running & step.cut_short), running & ~step.last
    return Outcome(*(torch.stack(column, 1) for column in zip(*rows, strict=True)))


def _dream(
    world: WorldModel, context: Context, actions: Tensor, place: Callable[[Tensor], Tensor], seed: int
) -> Outcome:
    """Take ``actions`` (E, T, N, A) in a dream from ``context``; reward counts as far as the episode may last."""
    generator = torch.Generator(actions.device).manual_seed(seed)
    states = predict_states(world, context, actions, generator)
    reward, cont = world.predict_reward(states, actions, generator)
    always = torch.ones_like(cont, dtype=torch.bool)
    return Outcome((reward * survival(cont)).cumsum(1), place(states[:, 1:]), always, always)


def _joined(outcomes: tuple[Outcome, ...], at: Tensor) -> Outcome:
    """All of them, at the steps of number ``at`` only."""
    return Outcome(*(torch.cat(column)[:, at] for column in zip(*(vars(x).values() for x in outcomes), strict=True)))


def _compare(true: Tensor, dreamt: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Pearson's correlation and the ratio of sizes (H,) of changes (P, H, K) that are ``counted`` (P, H).

    Moments are summed over K. Where one side changes nothing the correlation is 0.
    """
    weight = counted.unsqueeze(-1).double()
    true, dreamt = true * weight, dreamt * weight
    number, least = weight.sum(0).clamp_min(1.0), 1e-30
    size = dreamt.square().sum((0, 2)) / true.square().sum((0, 2)).clamp_min(least)
    true, dreamt = ((x - x.sum(0) / number) * weight for x in (true, dreamt))
    spread = true.square().sum((0, 2)) * dreamt.square().sum((0, 2))
    return (true * dreamt).sum((0, 2)) / spread.clamp_min(least).sqrt(), size.sqrt()
