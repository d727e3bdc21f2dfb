"""What the replay keeps and which part of it is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from dima_isaac.schema import Count, NonNegative, Range


@dataclass
class ReplayConfig:
    """Sizes count environment steps over all environments."""

    capacity: Count = 1_000_000
    # Probability mass of the oldest to the newest quarter of what is stored (DIMA's [.1, .1, .1, .7]).
    age_weights: Annotated[list[NonNegative], Range(1, 64)] = field(default_factory=lambda: [0.1, 0.1, 0.1, 0.7])
