"""Quaternion axioms, against rotation matrices written out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dima_isaac.sim.rotations import angle_between, from_rpy, quat_conj, quat_div, rotate, rotate_inverse, to_rpy
from tests.sim.quaternions import from_axis_angle, quat_mul


def unit(n: int, seed: int) -> torch.Tensor:
    q = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return q / q.norm(dim=1, keepdim=True)


def test_products_turn_in_order() -> None:
    a, b = unit(50, 0), unit(50, 1)
    v = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(rotate(quat_mul(a, b), v), rotate(a, rotate(b, v)))
    assert torch.allclose(quat_div(a, b), quat_mul(a, quat_conj(b)))
    assert torch.allclose(rotate_inverse(a, rotate(a, v)), v)
    assert torch.allclose(quat_mul(quat_div(a, b), b), a)


def test_i_j_is_k() -> None:
    i, j, k = torch.eye(4)[:3]
    assert torch.equal(quat_mul(i, j), k)
    assert torch.equal(quat_mul(j, k), i)


def test_a_quarter_turn_about_z() -> None:
    q = from_axis_angle((0.0, 0.0, 1.0), torch.tensor(math.pi / 2))
    assert torch.allclose(rotate(q, torch.tensor([1.0, 0.0, 0.0])), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


def test_rpy_is_z_after_y_after_x() -> None:
    roll, pitch, yaw = 0.4, -0.3, 2.0
    turns = [
        from_axis_angle(axis, torch.tensor(a))
        for axis, a in zip(torch.eye(3).tolist(), (roll, pitch, yaw), strict=True)
    ]
    expected = quat_mul(turns[2], quat_mul(turns[1], turns[0]))
    assert torch.allclose(torch.tensor(from_rpy(roll, pitch, yaw)), expected, atol=1e-6)
    assert to_rpy(expected).tolist() == pytest.approx([roll, 2 * math.pi + pitch, yaw], abs=1e-6)


@pytest.mark.parametrize("theta", [0.0, 1e-4, 1.0, 3.0, math.pi])
def test_angles_are_exact_at_both_ends(theta: float) -> None:
    start = unit(1, 4)
    turn = from_axis_angle((0.6, 0.0, 0.8), torch.tensor([theta], dtype=torch.float64))
    assert angle_between(quat_mul(turn, start), start).item() == pytest.approx(theta, abs=1e-7)
    assert angle_between(-quat_mul(turn, start), start).item() == pytest.approx(theta, abs=1e-7)
