"""Dreams that follow the simulator: same start, same actions; and a video of both, side by side.

When a dream is over, the next one starts from the real state. The dreamt state is put into a second simulation,
which never advances, and drawn like the first.
"""

import torch
from torch import Tensor

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.replay.config import ReplayConfig
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.tools.config import PlayConfig
from dima_isaac.tools.restore import Restored
from dima_isaac.training import probes, video
from dima_isaac.types import Controller, Step
from dima_isaac.world_model.world_model import Context


class Dream:
    """What a checkpoint's world model makes of every environment of ``env``, ``horizon`` steps at a time."""

    def __init__(self, restored: Restored, env: VecEnv, seed: int) -> None:
        """``display`` is an environment in the dreamt state; it holds an engine until ``close``."""
        self.world, self.horizon, self.age = restored.world(env), probes.HORIZON, 0
        self.display = restored.build_env(env.num_envs, seed)
        self.display.reset()
        self._newest = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
        self._index = torch.arange(env.num_envs, device=env.device)
        capacity = ReplayConfig(capacity=(self.world.history + 1) * env.num_envs)
        self._recent = ReplayBuffer(capacity, env.spec.dims, env.num_envs, env.device)
        self._generator = torch.Generator(restored.device).manual_seed(seed)
        self._context: Context | None = None  # None: not dreaming yet

    @property
    def begun(self) -> bool:
        """Whether enough rows have been seen to dream of the next ones."""
        return self._context is not None

    def show(self, step: Step) -> Tensor:
        """Put ``display`` into the dreamt state and return its error (E, D) in standard deviations.

        Before the first dream, and where an episode begins, the state is that of ``step``.
        """
        state = step.state if self._context is None or bool(step.first.any()) else self._context.state
        engine = self.display.engine
        self.display.task.pose(engine, state.to(engine.device))
        engine.refresh(torch.ones(self.display.num_envs, dtype=torch.bool, device=engine.device))
        return self.world.target.z(state) - self.world.target.z(step.state)

    def advance(self, step: Step, action: Tensor) -> None:
        """Dream of what follows ``action`` (E, N, A) in ``step``, in a new dream if the last one is over."""
        self._recent.add(step, action)
        over = self._context is None or self.age >= self.horizon or bool(step.first.any())
        if self._recent.size >= self.world.history and over:
            window = self._recent.gather(self._newest, self._index, self.world.history)
            self._context, self.age = self.world.context(window), 0
        if self._context is not None:
            self._context, self.age = self.world.step(self._context, action, self._generator), self.age + 1

    def close(self) -> None:
        """Release the second simulation."""
        self.display.close()


@torch.no_grad()
def record(
    restored: Restored, env: VecEnv, policy: Controller, writer: video.Writer, cfg: PlayConfig, steps: int
) -> str:
    """Film both, one row per environment; returns a summary of the error."""
    dream, errors = Dream(restored, env, cfg.seed), []
    try:
        step = env.reset(cfg.episode)
        for tick in range(steps + 1):
            error = dream.show(step).square().mean(1).sqrt().tolist()
            texts = ["not dreaming yet"] * env.num_envs
            if dream.begun:
                errors.append(sum(error) / len(error))
                texts = [f"dream {dream.age} of {dream.horizon}  error {each:.2f}" for each in error]
            pictures = []
            for i, text in enumerate(texts):
                for shown, label in ((env, f"simulator  step {tick}"), (dream.display, text)):
                    pictures.append(video.caption(shown.engine.render(i, cfg.width, cfg.height), label))
            writer.add(video.tile(pictures, columns=2))
            if tick == steps or bool(step.last.any()):
                break
            action = policy(step.obs)
            dream.advance(step, action)
            step = env.step(action)
    finally:
        dream.close()
    within = f"within dreams of {dream.horizon} steps"
    return f"mean error {sum(errors) / max(1, len(errors)):.3f} standard deviations {within}"
