"""Imagined rollouts, of a policy that acts in the world model or of actions that are given; no simulator is used."""

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
        context = world.context(window)
        states, xs, last_actions = [context.state], [context.x[:, -1]], [context.action[:, -1]]
        observations, actions, logps = [], [], []
        for _ in range(horizon):
            obs = world.observe(context.state)
            action, logp = policy(obs)
            context = world.step(context, action, generator)
            states.append(context.state)
            xs.append(context.x[:, -1])
            last_actions.append(context.action[:, -1])
            observations.append(obs)
            actions.append(action)
            logps.append(logp)
        drawn = torch.stack(actions, 1)
        reward, cont = world.predict_reward(torch.stack(states, 1), drawn, generator)
    return Rollout(
        obs=torch.stack(observations, 1),
        state=torch.stack(xs, 1),
        last_action=torch.stack(last_actions, 1),
        action=drawn,
        logp=torch.stack(logps, 1),
        reward=reward,
        cont=cont,
    )


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
