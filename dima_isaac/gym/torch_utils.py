"""``isaacgym.torch_utils``: quaternions (xyzw) and scaling, as functions that ``torch.jit.script`` takes.

Programs import everything from here, and rely on ``np`` and ``torch`` being among it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dima_isaac.gym.rules import absent


def to_torch(x: Any, dtype: torch.dtype = torch.float, device: str = "cuda:0", requires_grad: bool = False) -> Tensor:
    """``x`` as a new tensor."""
    return torch.tensor(x, dtype=dtype, device=device, requires_grad=requires_grad)


def normalize(x: Tensor, eps: float = 1e-9) -> Tensor:
    return x / x.norm(p=2, dim=-1).clamp(min=eps, max=None).unsqueeze(-1)


def quat_unit(a: Tensor) -> Tensor:
    return normalize(a)


def quat_mul(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product: first b, then a."""
    u, s, v, t = a[..., :3], a[..., 3:], b[..., :3], b[..., 3:]
    vector = s * v + t * u + torch.cross(u, v, dim=-1)
    return torch.cat([vector, s * t - (u * v).sum(-1, keepdim=True)], -1)


def quat_conjugate(a: Tensor) -> Tensor:
    return torch.cat([-a[..., :3], a[..., 3:]], -1)


def quat_apply(a: Tensor, b: Tensor) -> Tensor:
    """``b`` (..., 3) rotated by ``a``."""
    turn = 2.0 * torch.cross(a[..., :3], b, dim=-1)
    return b + a[..., 3:] * turn + torch.cross(a[..., :3], turn, dim=-1)


quat_rotate = tf_vector = get_basis_vector = quat_apply


def quat_rotate_inverse(q: Tensor, v: Tensor) -> Tensor:
    return quat_apply(quat_conjugate(q), v)


def quat_from_angle_axis(angle: Tensor, axis: Tensor) -> Tensor:
    half = (0.5 * angle).unsqueeze(-1)
    return quat_unit(torch.cat([normalize(axis) * half.sin(), half.cos()], -1))


def quat_axis(q: Tensor, axis: int = 0) -> Tensor:
    """The image of one of the coordinate axes."""
    unit = torch.zeros(q.shape[0], 3, device=q.device)
    unit[:, axis] = 1.0
    return quat_apply(q, unit)


def normalize_angle(x: Tensor) -> Tensor:
    return torch.atan2(torch.sin(x), torch.cos(x))


def quat_from_euler_xyz(roll: Tensor, pitch: Tensor, yaw: Tensor) -> Tensor:
    """Rz(yaw) Ry(pitch) Rx(roll)."""
    cr, sr, cp, sp = (0.5 * roll).cos(), (0.5 * roll).sin(), (0.5 * pitch).cos(), (0.5 * pitch).sin()
    cy, sy = (0.5 * yaw).cos(), (0.5 * yaw).sin()
    x, y = sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy
    return torch.stack([x, y, cr * cp * sy - sr * sp * cy, cr * cp * cy + sr * sp * sy], -1)


def get_euler_xyz(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Roll, pitch and yaw of Rz Ry Rx, each in [0, 2 pi)."""
    x, y, z, w = q[:, 0], q[:, 1], q[:, 2], q[:, 3]
    roll = torch.atan2(2.0 * (w * x + y * z), w * w - x * x - y * y + z * z)
    pitch = torch.asin((2.0 * (w * y - z * x)).clamp(-1.0, 1.0))
    yaw = torch.atan2(2.0 * (w * z + x * y), w * w + x * x - y * y - z * z)
    turn = 6.283185307179586
    return roll % turn, pitch % turn, yaw % turn


def tf_inverse(q: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    back = quat_conjugate(q)
    return back, -quat_apply(back, t)


def tf_apply(q: Tensor, t: Tensor, v: Tensor) -> Tensor:
    return quat_apply(q, v) + t


def tf_combine(q1: Tensor, t1: Tensor, q2: Tensor, t2: Tensor) -> tuple[Tensor, Tensor]:
    return quat_mul(q1, q2), quat_apply(q1, t2) + t1


def tensor_clamp(t: Tensor, min_t: Tensor, max_t: Tensor) -> Tensor:
    return torch.max(torch.min(t, max_t), min_t)


def scale(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """From [-1, 1] to [lower, upper]."""
    return 0.5 * (x + 1.0) * (upper - lower) + lower


def unscale(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """From [lower, upper] to [-1, 1]."""
    return (2.0 * x - upper - lower) / (upper - lower)


def torch_rand_float(lower: float, upper: float, shape: tuple[int, int], device: str) -> Tensor:
    return (upper - lower) * torch.rand(shape[0], shape[1], device=device) + lower


def get_axis_params(
    value: float, axis_idx: int, x_value: float = 0.0, dtype: type = float, n_dims: int = 3
) -> list[Any]:
    """``n_dims`` numbers: ``x_value`` first, ``value`` at ``axis_idx``, else 0."""
    out = np.zeros(n_dims)
    out[0] = x_value
    out[axis_idx] = value
    return [dtype(number) for number in out]


__getattr__ = absent("torch_utils")
