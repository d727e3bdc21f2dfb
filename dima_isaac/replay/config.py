"""What the replay keeps."""

from dataclasses import dataclass

from dima_isaac.schema import Count


@dataclass
class ReplayConfig:
    """Sizes count environment steps over all environments."""

    capacity: Count = 1_000_000
