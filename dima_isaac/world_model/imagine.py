"""Imagined rollouts, of a policy that acts in the world model or of actions that are given; no simulator is used."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from dima_isaac.types import Policy, Rollout, Window
from dima_isaac.world_model.world_model import Context, WorldModel


@torch.no_grad()
def imagine(
    world: WorldModel, policy: Policy, window: Window, horizon: int, generator: torch.Generator | None = None
) -> Rollout:
    """Imagine ``horizon`` steps from the end of ``window`` (B, history), without resets: shapes are constant.

    The rollout keeps actions as the policy drew them (their log-probabilities belong to them); ``last_action`` holds
    them as the model took them. Reward and continuation are predicted once, over the finished trajectory.
    """
    # one idle autocast around all keeps the bfloat16 copies of weights from call to call: else each call casts them
    with torch.autocast(world.device.type, enabled=False):
        contexts, taken = [world.context(window)], []
        for _ in range(horizon):
            obs = world.observe(contexts[-1].state)
            action, logp = policy(obs)
            contexts.append(world.step(contexts[-1], action, generator))
            taken.append((obs, action, logp))
        state, x, last_action = _stacked((c.state, c.x[:, -1], c.action[:, -1]) for c in contexts)
        obs, action, logp = _stacked(taken)
        reward, cont = world.predict_reward(state, action, generator)
    return Rollout(obs, state, x, last_action, action, logp, reward, cont)


def _stacked(steps: Iterable[tuple[Tensor, ...]]) -> Iterator[Tensor]:
    """Each column of ``steps``, (B, ...) at a time, as one tensor (B, steps, ...)."""
    return (torch.stack(column, 1) for column in zip(*steps, strict=True))


@torch.no_grad()
def predict_states(
    world: WorldModel, context: Context, actions: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Raw s (B, H + 1, D) from ``context`` under ``actions`` (B, H, N, A), without held-out errors."""
    states = [context.state]
    for action in actions.unbind(1):
        context = world.step(context, action, generator, errors=False)
        states.append(context.state)
    return torch.stack(states, 1)
