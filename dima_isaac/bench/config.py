"""The options of ``bench``. Torch-free."""

from dataclasses import dataclass
from enum import Enum

from dima_isaac.errors import UsageError
from dima_isaac.run.catalog import Catalog
from dima_isaac.schema import AUTO, Count, CountOrZero, Few, NonNegative, Seed, Size


class Suite(Enum):
    """What is measured."""

    engine = "engine"  # environment steps/s beside bare physics
    imagine = "imagine"  # imagined steps/s of two presets
    train = "train"  # environment steps/s of the whole loop, and where the time goes
    mamujoco = "mamujoco"  # beside gymnasium-robotics' own environments


@dataclass
class BenchConfig:
    """Measure speed. The last line printed is one JSON object."""

    suite: Suite = Suite.engine  # engine, imagine, train, mamujoco
    task: str = ""
    num_envs: Size | str = AUTO
    seconds: NonNegative = 20.0  # how long to measure, roughly
    env_steps: CountOrZero = 0  # engine: at least that many environment steps, to count what goes wrong in them
    repeats: Count = 3  # imagine: rounds, at least
    batch: Size | str = AUTO  # imagine: dreams; auto: 600, or fewer where that would take longer than `seconds`
    horizon: Few = 15  # imagine: steps of each
    against: str = "paper"  # imagine: the preset compared with `preset`
    seed: Seed = 0
    engine: str = AUTO
    sim_device: str = AUTO
    rl_device: str = AUTO
    threads: Few | str = AUTO

    def validate(self) -> None:
        """Raise ``UsageError`` unless the suite has its task, and can do what is asked."""
        other = [key for key in ("engine", "sim_device", "rl_device", "threads") if getattr(self, key) != AUTO]
        if self.suite is Suite.mamujoco and other:
            raise UsageError(f"suite=mamujoco measures engine=mujoco on all cores; leave {' and '.join(other)} out.")
        if self.suite is not Suite.mamujoco and not self.task:
            raise UsageError(f"suite={self.suite.name} needs task=NAME. Known: {', '.join(Catalog().names('task'))}.")
