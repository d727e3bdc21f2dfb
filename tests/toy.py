"""A Markov game in a few lines of torch, for tests of everything that does not need physics.

Two agents push a point mass each along a line and are paid for meeting at 0.5. ``poison`` makes one
environment fail, as diverging physics would.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dima_isaac.envs.task import Outcome, Task, TaskSpec
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import UsageError
from dima_isaac.sim.engine import Capabilities
from dima_isaac.sim.scene import Scene
from dima_isaac.types import Dims


class ToyEngine:
    """Unit masses with drag; the target is a force."""

    control_dt, substeps = 0.1, 1
    actor_names, link_names, dof_names = ("a", "b"), (), ("a/x", "b/x")

    def __init__(self, num_envs: int, device: torch.device | None = None, on_host: bool = True) -> None:
        """``on_host=False``: masks may not be read on the host, as on a GPU."""
        self.num_envs, self.device = num_envs, device or torch.device("cpu")
        self.capabilities = Capabilities(deterministic=True, on_host=on_host and self.device.type == "cpu")
        on = {"device": self.device}
        self.dof_pos = torch.zeros(num_envs, 2, **on)
        self.dof_vel = torch.zeros(num_envs, 2, **on)
        self.bad = torch.zeros(num_envs, dtype=torch.bool, **on)
        self.target = torch.zeros(num_envs, 2, **on)
        self.poison = torch.zeros(num_envs, dtype=torch.bool, **on)
        self._staged: list[tuple[Tensor, Tensor, Tensor]] = []
        self._count = torch.zeros((), dtype=torch.int64, **on)

    def set_dof_target(self, target: Tensor) -> None:
        self.target = target

    def set_dof_state(self, mask: Tensor, pos: Tensor, vel: Tensor) -> None:
        self._staged.append((mask.clone(), pos, vel))

    def _flush(self) -> None:
        for mask, pos, vel in self._staged:
            self.dof_pos.copy_(torch.where(mask[:, None], pos, self.dof_pos))
            self.dof_vel.copy_(torch.where(mask[:, None], vel, self.dof_vel))
        self._staged.clear()

    def step(self, hold: Tensor) -> None:
        self._flush()
        moving = ~hold[:, None]
        self.dof_vel.add_(moving * 0.1 * (5 * self.target - self.dof_vel))
        self.dof_pos.add_(moving * 0.1 * self.dof_vel)
        self.bad.copy_(self.poison)
        self._count += self.bad.sum()
        self.poison.zero_()

    def refresh(self, mask: Tensor) -> None:
        self._flush()

    def stats(self) -> dict[str, Tensor]:
        return {"nonfinite": self._count.clone()}

    def state_dict(self) -> dict[str, Tensor]:
        return {"pos": self.dof_pos, "vel": self.dof_vel, "target": self.target, "count": self._count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.dof_pos.copy_(state["pos"])
        self.dof_vel.copy_(state["vel"])
        self.target, self._count = (state[name].to(self.device).clone() for name in ("target", "count"))

    def render(self, env: int, width: int, height: int) -> np.ndarray:
        raise UsageError("point masses on a line: this engine cannot draw them.")

    def close(self) -> None:
        self._staged.clear()


class ToyTask(Task):
    """State (pos, vel, last action); each agent sees all of it."""

    def __init__(self, episode_length: int = 20, fence: float = 3.0) -> None:
        last_action_index = torch.tensor([[4], [5]])
        dims = Dims(agents=2, state=6, obs=6, action=1)
        self.spec = TaskSpec("Toy", dims, episode_length, 0.1, ("a", "b"), last_action_index)
        self.fence = fence

    def scene(self) -> Scene:
        return Scene(actors=())

    def bind(self, engine: ToyEngine) -> None:
        self.action = torch.zeros(engine.num_envs, 2, device=engine.device)

    def reset(self, engine: ToyEngine, mask: Tensor, noise) -> None:
        engine.set_dof_state(mask, noise.uniform(2), torch.zeros_like(engine.dof_vel))
        self.action = torch.where(mask[:, None], 0.0, self.action)

    def act(self, engine: ToyEngine, action: Tensor) -> None:
        self.action = action.squeeze(-1).clamp(-1, 1)
        engine.set_dof_target(self.action)

    def state(self, engine: ToyEngine) -> Tensor:
        return torch.cat([engine.dof_pos, engine.dof_vel, self.action], 1)

    def observe(self, state: Tensor) -> Tensor:
        return state.unsqueeze(-2).expand(*state.shape[:-1], 2, 6)

    def compute_reward(self, engine: ToyEngine) -> Outcome:
        gap = (engine.dof_pos - 0.5).abs()
        reward = torch.exp(-gap).mean(1)
        return Outcome(reward, (engine.dof_pos.abs() > self.fence).any(1), (gap < 0.1).all(1), {"meet": reward})

    def state_dict(self) -> dict[str, Tensor]:
        return {"action": self.action}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.action = state["action"].to(self.action.device).clone()


def toy_env(
    num_envs: int = 4,
    seed: int = 0,
    device: torch.device | None = None,
    on_host: bool = True,
    out: torch.device | None = None,
    **task,
) -> VecEnv:
    """The toy game as a vectorised environment; ``out`` is the learner's device, if it is another one."""
    return VecEnv(ToyEngine(num_envs, device, on_host), ToyTask(**task), seed, out)
