"""Quaternions as tensors (..., 4), xyzw, unit length; active rotations, q p means first p, then q."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=16)
def _product_table(device: torch.device, dtype: torch.dtype, inverse: bool) -> tuple[Tensor, Tensor]:
    """Which component of b, and with which sign, multiplies a_j in component i of a b (or a b^-1); (16,) each."""
    index = [[3, 2, 1, 0], [2, 3, 0, 1], [1, 0, 3, 2], [0, 1, 2, 3]]
    sign = [[1, 1, -1, 1], [-1, 1, 1, 1], [1, -1, 1, 1], [-1, -1, -1, 1]]
    if inverse:
        sign = [[s if k == 3 else -s for s, k in zip(*rows, strict=True)] for rows in zip(sign, index, strict=True)]
    flat = torch.tensor(index, device=device).flatten()
    return flat, torch.tensor(sign, device=device, dtype=dtype).flatten()


def _product(a: Tensor, b: Tensor, inverse: bool) -> Tensor:
    # few large operations: in the loop of an environment the cost of a tensor operation is its launch
    index, sign = _product_table(b.device, b.dtype, inverse)
    matrix = (b.index_select(-1, index) * sign).unflatten(-1, (4, 4))
    return (matrix * a.unsqueeze(-2)).sum(-1)


def quat_mul(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product a b."""
    return _product(a, b, inverse=False)


def quat_div(a: Tensor, b: Tensor) -> Tensor:
    """a b^-1: the turn from b to a."""
    return _product(a, b, inverse=True)


def quat_conj(q: Tensor) -> Tensor:
    """The inverse of a unit quaternion."""
    return torch.cat([-q[..., :3], q[..., 3:]], -1)


def rotate(q: Tensor, v: Tensor) -> Tensor:
    """``v`` (..., 3) turned by ``q``: v + 2 w (u x v) + 2 u x (u x v)."""
    u, w = q[..., :3], q[..., 3:]
    u, v = torch.broadcast_tensors(u, v)
    t = 2.0 * torch.linalg.cross(u, v)
    return v + w * t + torch.linalg.cross(u, t)


def rotate_inverse(q: Tensor, v: Tensor) -> Tensor:
    """``v`` (..., 3) in the axes of the frame whose orientation is ``q``."""
    return rotate(quat_conj(q), v)


def from_axis_angle(axis: Sequence[float], angle: Tensor) -> Tensor:
    """Turn by ``angle`` (...,) about a unit ``axis``."""
    half = 0.5 * angle.unsqueeze(-1)
    direction = torch.tensor(list(axis), dtype=angle.dtype, device=angle.device)
    return torch.cat([half.sin() * direction, half.cos()], -1)


def from_rpy(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """Rz(yaw) Ry(pitch) Rx(roll) as four numbers, for scenes."""
    cr, sr = math.cos(roll / 2), math.sin(roll / 2)
    cp, sp = math.cos(pitch / 2), math.sin(pitch / 2)
    cy, sy = math.cos(yaw / 2), math.sin(yaw / 2)
    return (
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )


def to_rpy(q: Tensor) -> Tensor:
    """Roll, pitch and yaw (..., 3) of Rz Ry Rx, each wrapped to [0, 2 pi)."""
    x, y, z, w = q.unbind(-1)
    roll = torch.atan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y))
    pitch = torch.asin((2.0 * (w * y - z * x)).clamp(-1.0, 1.0))
    yaw = torch.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
    return torch.stack([roll, pitch, yaw], -1) % (2.0 * math.pi)


def angle(q: Tensor) -> Tensor:
    """How far ``q`` turns, (...,) in [0, pi]: 2 asin |vec(q)|, in the form that is exact at both ends."""
    return 2.0 * torch.atan2(q[..., :3].norm(dim=-1), q[..., 3].abs())


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """The angle (...,) in [0, pi] of the turn from b to a."""
    return angle(quat_div(a, b))
