"""Settings of ``task=pettingzoo``. Torch-free."""

from dataclasses import dataclass, field
from typing import Any

from dima_isaac.schema import Count, FewOrZero, Positive


@dataclass
class PettingZooConfig:
    """Which environment, and the processes it runs in."""

    env_id: str = ""  # package.module:factory, or a module with parallel_env
    env_args: dict[str, Any] = field(default_factory=dict)  # the factory's arguments
    workers: FewOrZero = 0  # processes; 0: one per core, at most one per environment
    patience: Positive = 5.0  # seconds that a worker may take to answer one step
    start_patience: Positive = 60.0  # seconds that imports and construction may take
    episode_length: Count = 1000  # control steps at most; the environment may end an episode earlier
