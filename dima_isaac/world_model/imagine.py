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
        memory = world.remember(window)
        states, xs, acted = [memory.state], [memory.x[:, -1]], [memory.action[:, -1]]
        seen, drawn, chances = [], [], []
        for _ in range(horizon):
            obs = world.observe(memory.state)
            action, logp = policy(obs)
            memory = world.step(memory, action, generator)
            states.append(memory.state)
            xs.append(memory.x[:, -1])
            acted.append(memory.action[:, -1])
            seen.append(obs)
            drawn.append(action)
            chances.append(logp)
        taken = torch.stack(drawn, 1)
        reward, cont = world.judge(torch.stack(states, 1), taken)
    return Rollout(
        obs=torch.stack(seen, 1),
        state=torch.stack(xs, 1),
        last_action=torch.stack(acted, 1),
        action=taken,
        logp=torch.stack(chances, 1),
        reward=reward,
        cont=cont,
    )
