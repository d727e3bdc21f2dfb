"""Quaternions that only tests make."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dima_isaac.sim.rotations import quat_conj, quat_div


def quat_mul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Hamilton product a b: first b, then a."""
    return quat_div(a, quat_conj(b))


def from_axis_angle(axis: Sequence[float], angle: torch.Tensor) -> torch.Tensor:
    """Rotation by ``angle`` (...,) about a unit ``axis``, xyzw."""
    half = 0.5 * angle.unsqueeze(-1)
    return torch.cat([half.sin() * torch.tensor(axis, dtype=angle.dtype), half.cos()], -1)
