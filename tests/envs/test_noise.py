"""Counter-based noise: its distribution, and what it may depend on."""

from __future__ import annotations

import pytest
import torch

from dima_isaac.envs import noise
from dima_isaac.envs.noise import Noise


def episodes(n: int, value: int = 3) -> torch.Tensor:
    return torch.full((n,), value, dtype=torch.int64)


def test_uniform_fills_its_interval_evenly() -> None:
    u = Noise(7, episodes(4096)).uniform(24).double().flatten()
    n = len(u)
    assert -1.0 <= u.min() < -0.9999 and 0.9999 < u.max() < 1.0
    assert abs(u.mean()) < 5 * (1 / 3) ** 0.5 / n**0.5
    assert abs(u.var() - 1 / 3) < 5 * (4 / 45) ** 0.5 / n**0.5
    counts = torch.histc(u, 64, -1, 1)
    chi2 = ((counts - n / 64) ** 2 / (n / 64)).sum()
    assert 63 - 5 * (2 * 63) ** 0.5 < chi2 < 63 + 5 * (2 * 63) ** 0.5


def test_normal_has_unit_moments() -> None:
    z = Noise(7, episodes(4096)).normal(24).double().flatten()
    n = len(z)
    assert abs(z.mean()) < 5 / n**0.5
    assert abs(z.var() - 1) < 5 * 2**0.5 / n**0.5
    assert abs((z**4).mean() - 3) < 5 * 96**0.5 / n**0.5


def test_neighbours_are_uncorrelated() -> None:
    """Environments, episodes, columns, streams and seeds each give independent numbers."""
    n = 20_000
    first = Noise(0, episodes(n))
    u, later_stream = first.uniform(2), first.uniform(2)
    others = {
        "environment": u[1:, 0],
        "column": u[:, 1],
        "stream": later_stream[:, 0],
        "episode": Noise(0, episodes(n, 4)).uniform(2)[:, 0],
        "seed": Noise(1, episodes(n)).uniform(2)[:, 0],
    }
    for name, other in others.items():
        pair = torch.stack([u[: len(other), 0], other])
        assert abs(torch.corrcoef(pair)[0, 1]) < 5 / n**0.5, name


def test_draws_of_an_environment_do_not_depend_on_their_number() -> None:
    few, many = Noise(11, episodes(3)), Noise(11, episodes(50))
    for n in (24, 3, 2):
        assert torch.equal(few.uniform(n), many.uniform(n)[:3])
    assert torch.equal(few.normal(4), many.normal(4)[:3])


def test_an_environment_ignores_the_episodes_of_others() -> None:
    mixed = torch.tensor([3, 9, 3])
    assert torch.equal(Noise(1, mixed).uniform(5)[[0, 2]], Noise(1, episodes(3)).uniform(5)[[0, 2]])
    assert not torch.equal(Noise(1, mixed).uniform(5)[1], Noise(1, episodes(3)).uniform(5)[1])


def test_a_column_does_not_depend_on_how_many_are_drawn() -> None:
    assert torch.equal(Noise(5, episodes(4)).uniform(9)[:, :2], Noise(5, episodes(4)).uniform(2))


def test_large_and_negative_seeds_work() -> None:
    values = [Noise(seed, episodes(1)).uniform(1).item() for seed in (-1, 0, 2**31, 2**62)]
    assert len(set(values)) == 4


def splitmix(x: int) -> int:
    """The finaliser of SplitMix on Python's own integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


@pytest.mark.parametrize("seed", [0, 3, 1_000_003, -1])
def test_the_numbers_are_the_hash_of_their_coordinates(seed: int) -> None:
    golden, episode = 0x9E3779B97F4A7C15, [0, 1, -1, 7, 1 << 40, (1 << 63) - 1]
    draws = Noise(seed, torch.tensor(episode))
    draws.uniform(1)
    drawn = draws.uniform(3).tolist()
    for env, number in enumerate(episode):
        key = splitmix(
            splitmix(splitmix((env * golden + seed) % 2**64) + number * golden & 2**64 - 1) + golden & 2**64 - 1
        )
        for column in range(3):
            bits = splitmix(splitmix(key + 2 * golden & 2**64 - 1) + column * golden & 2**64 - 1)
            assert drawn[env][column] == 2.0 * (bits >> 40) / 2**24 - 1.0


@pytest.mark.parametrize("seed", [0, -1])
def test_torch_draws_the_same_numbers(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.tensor([True, False, True])
    host = Noise(seed, episodes(3), mask).uniforms(24, 0, 3)
    monkeypatch.setattr(noise, "_torch_device", lambda tensor: tensor.device)
    device = Noise(seed, episodes(3), mask).uniforms(24, 0, 3)
    assert all(torch.equal(mine[mask], theirs[mask]) for mine, theirs in zip(device, host, strict=True))


def test_several_streams_at_once_are_those_drawn_one_by_one() -> None:
    at_once, one_by_one = Noise(3, episodes(5)), Noise(3, episodes(5))
    assert all(map(torch.equal, at_once.uniforms(24, 0, 3), [one_by_one.uniform(n) for n in (24, 0, 3)]))
    assert [part.shape for part in at_once.uniforms(0, 0)] == [(5, 0), (5, 0)]
    one_by_one.uniform(2), one_by_one.uniform(2)
    assert torch.equal(at_once.uniform(2), one_by_one.uniform(2))


def test_draws_of_an_environment_do_not_depend_on_the_mask() -> None:
    mask = torch.tensor([False, True, False, True])
    alone, everyone = Noise(3, episodes(4), mask), Noise(3, episodes(4))
    assert torch.equal(alone.uniform(24)[mask], everyone.uniform(24)[mask])
    assert torch.equal(alone.normal(5)[mask], everyone.normal(5)[mask])
