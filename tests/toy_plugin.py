"""The toy game as a user would add it: a task and an engine named by YAML files in a folder of their own."""

from __future__ import annotations

from dima_isaac.sim.scene import Scene
from tests.toy import ToyEngine, ToyTask
from tests.toy_config import ToyConfig, ToyEngineConfig


class ToyPhysics(ToyEngine):
    """Built as the library builds every engine."""

    def __init__(self, scene: Scene, num_envs: int, cfg: ToyEngineConfig) -> None:
        super().__init__(num_envs)
        self.cfg = cfg


class Toy(ToyTask):
    """Built as the library builds every task."""

    Config = ToyConfig

    def __init__(self, cfg: ToyConfig) -> None:
        super().__init__(cfg.episode_length, cfg.fence)
        self.cfg = cfg


class Exact(Toy):
    """Its numbers are one engine's."""

    preferred_engine = "mujoco"


class OwnEngine(Toy):
    """Simulates itself."""

    own_engine = True

    def build_engine(self, num_envs: int) -> ToyEngine:
        return ToyEngine(num_envs)
