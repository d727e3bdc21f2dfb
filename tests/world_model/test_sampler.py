"""The reverse process on denoisers whose result is known."""

import torch

from dima_isaac.world_model.karras import grid
from dima_isaac.world_model.sampler import sample


def test_the_last_step_returns_the_estimate():
    marks = iter(range(4))
    last = torch.randn(5, 3)

    def denoise(x, sigma, condition):
        return last if next(marks) == 3 else torch.randn(5, 3)

    assert torch.allclose(sample(denoise, torch.randn(5, 3), grid(4), range(4)), last, atol=1e-5)


def test_the_exact_denoiser_of_a_gaussian_carries_noise_to_its_distribution():
    std = 0.5
    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))

    def denoise(x, sigma, condition):
        return x * std**2 / (std**2 + sigma**2)

    out = sample(denoise, noise, grid(200, high=80.0), [None] * 200)
    assert abs(out.std().item() - std) < 0.02


def test_each_step_gets_its_level_and_condition():
    seen = []

    def denoise(x, sigma, condition):
        seen.append((round(sigma.item(), 4), condition))
        return x * 0

    sample(denoise, torch.ones(1, 1), grid(3), "abc")
    assert seen == [(5.0, "a"), (0.2831, "b"), (0.002, "c")]
