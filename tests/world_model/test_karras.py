"""Noise levels and preconditioning against the published numbers."""

import pytest
import torch

from dima_isaac.world_model.karras import OFFSET, add_noise, draw_sigma, grid, precondition

TABLE = [  # sigma, inp, skip, out, noise; data 0.5, offset 0.3
    (5.0, 0.1987, 0.0099, 0.4975, 0.4028),
    (1.81763, 0.5239, 0.0686, 0.4825, 0.1527),
    (0.84475, 0.9742, 0.2373, 0.4367, -0.0273),
    (0.55667, 1.2405, 0.3847, 0.3922, -0.1146),
    (0.28308, 1.5428, 0.5950, 0.3182, -0.2214),
    (0.13390, 1.6715, 0.6985, 0.2746, -0.2783),
    (0.07744, 1.7001, 0.7226, 0.2634, -0.2929),
    (0.02233, 1.7137, 0.7342, 0.2578, -0.3003),
    (0.002, 1.7150, 0.7353, 0.2573, -0.3010),
]
GRIDS = {
    3: [5, 0.28308, 0.002, 0],
    4: [5, 0.84475, 0.07744, 0.002, 0],
    6: [5, 1.81763, 0.55667, 0.13390, 0.02233, 0.002, 0],
    8: [5, 2.46422, 1.12150, 0.46190, 0.16722, 0.05092, 0.01215, 0.002, 0],
}


@pytest.mark.parametrize("row", TABLE)
def test_preconditioning(row):
    scales = precondition(torch.tensor(row[0]))
    got = [scales.inp.item(), scales.skip.item(), scales.out.item(), scales.noise.item()]
    assert got == pytest.approx(row[1:], abs=6e-5)


def test_without_offset_at_one():
    scales = precondition(torch.tensor(1.0), 0.5, 0.0)
    assert scales.inp.item() == pytest.approx(0.8944, abs=5e-5)
    assert scales.skip.item() == pytest.approx(0.2)
    assert scales.out.item() == pytest.approx(0.4472, abs=5e-5)
    assert scales.noise.item() == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("steps", GRIDS)
def test_grid(steps):
    assert grid(steps).tolist() == pytest.approx(GRIDS[steps], abs=6e-6)


def test_training_levels_are_clipped_log_normal():
    sigma = draw_sigma(200_000, torch.Generator().manual_seed(0))
    assert sigma.shape == (200_000, 1) and sigma.min() >= 0.002 and sigma.max() <= 20.0
    assert sigma.log().mean().item() == pytest.approx(-0.4, abs=0.01)
    assert sigma.log().std().item() == pytest.approx(1.2, abs=0.01)


def test_the_offset_noise_is_white_and_adds_to_every_level():
    clean, sigma = torch.zeros(100_000, 2), torch.tensor([[0.0], [0.4]]).repeat(50_000, 1)
    noisy = add_noise(clean, sigma, torch.Generator().manual_seed(0))
    assert noisy[::2].std().item() == pytest.approx(OFFSET, rel=0.01)
    assert noisy[1::2].std().item() == pytest.approx(0.5, rel=0.01)  # 0.3, 0.4, 0.5
    assert noisy[:, 0].dot(noisy[:, 1]).item() / 100_000 == pytest.approx(0.0, abs=0.005)
