"""The toy plug-in's settings, torch-free as every engine's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ToyEngineConfig:
    """Nothing to choose but this."""

    drag: float = 1.0


@dataclass
class ToyConfig:
    """The toy game's own values."""

    episode_length: int = 20
    fence: float = 3.0
