"""A video of the simulator beside the world model's dream: same start, same actions.

A dream is as long as those that the policy learns in; then the next one starts from the real state. The dreamt
state is put into a second simulation, which never advances, and drawn like the first.
"""

import torch
from torch import Tensor

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.replay.config import ReplayConfig
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.tools.config import PlayConfig
from dima_isaac.tools.restore import Restored
from dima_isaac.train import probes, video
from dima_isaac.types import Controller


@torch.no_grad()
def record(
    restored: Restored, env: VecEnv, policy: Controller, writer: video.Writer, cfg: PlayConfig, steps: int
) -> str:
    """Film both, one row per environment; returns a summary of the error."""
    world, horizon = restored.world(env), probes.HORIZON
    display = restored.build_env(env.num_envs, cfg.seed)
    newest = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    index = torch.arange(env.num_envs, device=env.device)
    capacity = ReplayConfig(capacity=(world.history + 1) * env.num_envs)
    recent = ReplayBuffer(capacity, env.spec.dims, env.num_envs, env.device)
    generator = torch.Generator(restored.device).manual_seed(cfg.seed)
    context, age, errors = None, 0, []
    try:
        display.reset()
        step = env.reset(cfg.episode)
        for tick in range(steps + 1):
            state = step.state if context is None else context.state
            error = (world.target.z(state) - world.target.z(step.state)).square().mean(1).sqrt().tolist()
            texts = ["not dreaming yet"] * env.num_envs
            if context is not None:
                errors.append(sum(error) / len(error))
                texts = [f"dream {age} of {horizon}  error {each:.2f}" for each in error]
            _show(display, state)
            pictures = []
            for i, text in enumerate(texts):
                for shown, label in ((env, f"simulator  step {tick}"), (display, text)):
                    pictures.append(video.caption(shown.engine.render(i, cfg.width, cfg.height), label))
            writer.add(video.tile(pictures, columns=2))
            if tick == steps or bool(step.last.any()):
                break
            action = policy(step.obs)
            recent.add(step, action)
            if recent.size >= world.history and (context is None or age == horizon):
                context, age = world.context(recent.gather(newest, index, world.history)), 0
            step = env.step(action)
            if context is not None:
                context, age = world.step(context, action, generator), age + 1
    finally:
        display.close()
    return f"mean error {sum(errors) / max(1, len(errors)):.3f} standard deviations within dreams of {horizon} steps"


def _show(display: VecEnv, state: Tensor) -> None:
    """Put every environment of ``display`` into ``state`` (E, D) without advancing time."""
    device = display.engine.device
    display.task.pose(display.engine, state.to(device))
    display.engine.refresh(torch.ones(display.num_envs, dtype=torch.bool, device=device))
