"""A PettingZoo ``ParallelEnv`` as a task.

The state is the concatenation of all agents' observations, so that ``observe`` is a gather here too. The team's reward
is the mean of the agents'. Actions are numbers in [-1, 1], mapped to a Box's bounds; in a Discrete space with n choices
an agent has n numbers, and the largest one chooses.
"""

from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dima_isaac.envs.agent_view import AgentView
from dima_isaac.envs.noise import Noise
from dima_isaac.envs.pettingzoo.config import PettingZooConfig
from dima_isaac.envs.pettingzoo.engine import ParallelEngine
from dima_isaac.envs.pettingzoo.worker import Layout, action_size, make_env
from dima_isaac.envs.task import Outcome, Task, TaskSpec
from dima_isaac.errors import UsageError
from dima_isaac.types import Dims

_SEEDS = 1 << 24  # float32 represents integers exactly up to this one


class PettingZooTask(Task):
    """A task that the environment itself simulates."""

    Config = PettingZooConfig
    own_engine = True

    def __init__(self, cfg: PettingZooConfig) -> None:
        """Make one environment to read its agents and spaces.

        Raises:
            UsageError: no ``env_id``, an environment that cannot be made, or spaces that are not of numbers.
        """
        if not cfg.env_id:
            raise UsageError("task=pettingzoo needs task.env_id=package.module:factory, or a module with parallel_env.")
        self.cfg = cfg
        probe = make_env(cfg.env_id, dict(cfg.env_args))
        agents = tuple(probe.possible_agents)
        if not agents:
            raise UsageError(f"{cfg.env_id}: possible_agents is empty; a team's members must be known from the start.")
        sizes = []
        for name in agents:
            space = probe.observation_space(name)
            if getattr(space, "shape", None) is None:
                raise UsageError(f"{cfg.env_id}: {name} observes {space}; only spaces of arrays are supported.")
            sizes.append(int(np.prod(space.shape)))
        self.layout = Layout(agents, tuple(sizes), tuple(action_size(probe.action_space(name)) for name in agents))
        probe.close()
        ends, width = list(accumulate(sizes)), sum(sizes)
        self._view = AgentView([list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)], width)
        slots = max(self.layout.actions)
        used = torch.tensor([[k < own for k in range(slots)] for own in self.layout.actions])
        self.spec = TaskSpec(
            name=cfg.env_id,
            dims=Dims(agents=len(agents), state=width, obs=max(sizes), action=slots),
            episode_length=cfg.episode_length,
            control_dt=float("nan"),
            agent_names=agents,
            goal=False,
            action_mask=None if bool(used.all()) else used,
            notes=(f"{cfg.env_id} in worker processes", "state: what all agents see; reward: the agents' mean"),
        )

    def build_engine(self, num_envs: int) -> ParallelEngine:
        return ParallelEngine(self.cfg, self.layout, num_envs)

    def bind(self, engine: Any) -> None:
        self._arrays = engine.arrays
        self._never = torch.zeros(engine.num_envs, dtype=torch.bool)

    def reset(self, engine: Any, mask: Tensor, noise: Noise) -> None:
        seed = ((noise.uniform(1)[:, 0] + 1.0) * (_SEEDS / 2)).to(torch.int64)
        engine.stage_reset(mask, seed)

    def act(self, engine: Any, action: Tensor) -> None:
        self._arrays["action"].copy_(action)

    def state(self, engine: Any) -> Tensor:
        """(E, D): all agents' observations, one after the other."""
        return self._arrays["state"].clone()

    def observe(self, state: Tensor) -> Tensor:
        return self._view(state)

    def compute_reward(self, engine: Any) -> Outcome:
        """The agents' mean reward; the environment's own terminations and truncations."""
        arrays = self._arrays
        reward = arrays["reward"].clone()
        return Outcome(reward, arrays["terminal"].clone(), self._never, {}, truncated=arrays["truncated"].clone())
