"""A dream: the policy acts, the world model answers, and nothing real happens."""

from __future__ import annotations

import torch

from dima_isaac.types import Policy, Rollout, Window
from dima_isaac.world_model.world_model import WorldModel


@torch.no_grad()
def imagine(
    world: WorldModel, policy: Policy, window: Window, horizon: int, generator: torch.Generator | None = None
) -> Rollout:
    """Dream ``horizon`` steps from the end of ``window`` (B, history), without resets: shapes are constant.

    The rollout keeps the actions as the policy drew them (their log-probabilities belong to them);
    ``last_action`` holds what the world was told. Reward and continuation are judged once, over the finished dream.
    """
    # one autocast around all, itself idle, keeps the shortened weights from call to call: else each casts them anew
    with torch.autocast(world.device.type, enabled=False):
        context = world.context(window)
        states, xs, acted = [context.state], [context.x[:, -1]], [context.action[:, -1]]
        seen, drawn, chances = [], [], []
        for _ in range(horizon):
            obs = world.observe(context.state)
            action, logp = policy(obs)
            context = world.step(context, action, generator)
            states.append(context.state)
            xs.append(context.x[:, -1])
            acted.append(context.action[:, -1])
            seen.append(obs)
            drawn.append(action)
            chances.append(logp)
        taken = torch.stack(drawn, 1)
        reward, cont = world.predict_reward(torch.stack(states, 1), taken)
    return Rollout(
        obs=torch.stack(seen, 1),
        state=torch.stack(xs, 1),
        last_action=torch.stack(acted, 1),
        action=taken,
        logp=torch.stack(chances, 1),
        reward=reward,
        cont=cont,
    )
