"""The simulator beside the world model's dream: same start, same actions.

A dream is as long as those that the policy learns in; then the next one starts from the real state. The dreamt
state is put into a second simulation, which never advances, and drawn like the first.
"""

from __future__ import annotations

import torch

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.replay.config import ReplayConfig
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.tools.config import PlayConfig
from dima_isaac.tools.restore import Policy, Restored
from dima_isaac.train import video


@torch.no_grad()
def record(restored: Restored, env: VecEnv, policy: Policy, writer: video.Writer, cfg: PlayConfig, steps: int) -> str:
    """Film both, one row per environment; returns what to tell the user.

    Raises:
        UsageError: a task whose state does not determine the pose.
    """
    world, horizon = restored.world(env), restored.cfg.train.probe_horizon
    stage = restored.build_env(env.num_envs, cfg.seed)
    everyone = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    now, index = torch.zeros_like(everyone, dtype=torch.int64), torch.arange(env.num_envs, device=env.device)
    rows = ReplayBuffer(
        ReplayConfig(capacity=(world.history + 1) * env.num_envs), env.spec.dims, env.num_envs, env.device
    )
    generator = torch.Generator(restored.device).manual_seed(cfg.seed)
    size, errors = (cfg.width, cfg.height), []
    context, age = None, 0
    try:
        stage.reset()
        step = env.restart(cfg.episode)
        for tick in range(steps + 1):
            seen = step.state if context is None else context.state
            error = (world.space.z(seen) - world.space.z(step.state)).square().mean(1).sqrt()
            stage.task.pose(stage.engine, seen.to(stage.engine.device))
            stage.engine.refresh(everyone.to(stage.engine.device))
            off = error.tolist()
            if context is not None:
                errors.append(sum(off) / len(off))
            pictures = []
            for i in range(env.num_envs):
                text = f"dream {age} of {horizon}  error {off[i]:.2f}" if context is not None else "not dreaming yet"
                pictures.append(video.caption(video.draw(env, i, *size), f"simulator  step {tick}"))
                pictures.append(video.caption(video.draw(stage, i, *size), text))
            writer.add(video.tile(pictures, columns=2))
            if tick == steps or bool(step.last.any()):
                break
            action = policy(step.obs)
            rows.add(step, action)
            if rows.size >= world.history and (context is None or age == horizon):
                context, age = world.context(rows.gather(now, index, world.history)), 0
            step = env.step(action)
            if context is not None:
                context, age = world.step(context, action, generator), age + 1
    finally:
        stage.close()
    return f"mean error {sum(errors) / max(1, len(errors)):.3f} standard deviations within dreams of {horizon} steps"
