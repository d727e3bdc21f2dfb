"""Quaternions as tensors (..., 4), xyzw, unit length; active rotations, q p means first p, then q."""

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=16)
def _quotient_table(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Which component of b, and with which sign, multiplies a_j in component i of a b^-1; (16,) each."""
    index = [[3, 2, 1, 0], [2, 3, 0, 1], [1, 0, 3, 2], [0, 1, 2, 3]]
    sign = [[1, -1, 1, -1], [1, 1, -1, -1], [-1, 1, 1, -1], [1, 1, 1, 1]]
    return torch.tensor(index, device=device).flatten(), torch.tensor(sign, device=device, dtype=dtype).flatten()


def quat_div(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product a b^-1: the rotation from b to a."""
    # few large operations: for a few numbers per environment, a tensor operation costs its launch
    index, sign = _quotient_table(b.device, b.dtype)
    matrix = (b.index_select(-1, index) * sign).unflatten(-1, (4, 4))
    return (matrix * a.unsqueeze(-2)).sum(-1)


def quat_conj(q: Tensor) -> Tensor:
    """The inverse of a unit quaternion."""
    return torch.cat([-q[..., :3], q[..., 3:]], -1)


def rotate(q: Tensor, v: Tensor) -> Tensor:
    """``v`` (..., 3) rotated by ``q``: v + 2 w (u x v) + 2 u x (u x v)."""
    u, w = q[..., :3], q[..., 3:]
    if u.dim() != v.dim():
        u, v = torch.broadcast_tensors(u, v)
    t = 2.0 * torch.linalg.cross(u, v)
    return v + w * t + torch.linalg.cross(u, t)


def rotate_inverse(q: Tensor, v: Tensor) -> Tensor:
    """``v`` (..., 3) in the axes of the frame whose orientation is ``q``."""
    return rotate(quat_conj(q), v)


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
    left, right, weight, shift = _rpy_table(q.device, q.dtype)
    products = q.index_select(-1, left) * q.index_select(-1, right) * weight
    entry = products.unflatten(-1, (2, 5)).sum(-2) + shift  # sines of roll and yaw, their cosines, sine of the pitch
    around = torch.atan2(entry[..., 0:2], entry[..., 2:4])
    pitch = torch.asin(entry[..., 4:].clamp(-1.0, 1.0))
    return torch.cat([around[..., :1], pitch, around[..., 1:]], -1) % (2.0 * math.pi)


@lru_cache(maxsize=16)
def _rpy_table(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Five entries of the rotation matrix, sums of two weighted products each: factors, weights (10,); shifts (5,)."""
    x, y, z, w = range(4)
    left, right = [w, w, x, y, w, y, x, y, z, z], [x, z, x, y, y, z, y, y, z, x]
    weight = [2.0, 2.0, -2.0, -2.0, 2.0, 2.0, 2.0, -2.0, -2.0, -2.0]
    shift = [0.0, 0.0, 1.0, 1.0, 0.0]
    return (
        torch.tensor(left, device=device),
        torch.tensor(right, device=device),
        torch.tensor(weight, device=device, dtype=dtype),
        torch.tensor(shift, device=device, dtype=dtype),
    )


def length(v: Tensor) -> Tensor:
    """Euclidean length (...,) of ``v`` (..., n); ``Tensor.norm`` does the same more slowly."""
    return torch.linalg.vector_norm(v, dim=-1)


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """The angle (...,) in [0, pi] of the rotation q from b to a: 2 asin |vec(q)|, in the form exact at both ends."""
    q = quat_div(a, b)
    return 2.0 * torch.atan2(length(q[..., :3]), q[..., 3].abs())
