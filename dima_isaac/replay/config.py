"""What the replay keeps and which part of it is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ReplayConfig:
    """Sizes count environment steps over all environments."""

    capacity: int = 1_000_000
    # Probability mass of the oldest to the newest quarter of what is stored (DIMA's [.1, .1, .1, .7]).
    age_weights: list[float] = field(default_factory=lambda: [0.1, 0.1, 0.1, 0.7])
