"""Imagined rollouts: the policy acts in the world model, and the simulator is not touched."""

import torch

from dima_isaac.types import Policy, Rollout, Window
from dima_isaac.world_model.world_model import WorldModel


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
