"""A replay equals the call: values, random numbers, gradients, state."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from dima_isaac.nn.captured import WARM, Captured
from dima_isaac.nn.optim import Optimiser
from tests.tape import use_tapes

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def tapes(monkeypatch) -> None:
    use_tapes(monkeypatch)


@pytest.fixture(params=DEVICES)
def device(request) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device(request.param)


@dataclass
class Pair:
    left: Tensor
    right: Tensor | None


class Counter:
    """Adds up what it sees and counts how often Python ran."""

    def __init__(self, device: torch.device) -> None:
        self.total, self.runs = torch.zeros(2, device=device), 0
        self.generator = torch.Generator(device).manual_seed(5)

    def __call__(self, pair: Pair) -> dict[str, Tensor]:
        self.runs += 1
        self.total += pair.left
        noise = torch.randn(2, device=self.total.device, generator=self.generator)
        return {"total": self.total * 2.0, "noise": noise, "row": self.total.view(2, 1).T[0] + noise}


def test_state_is_changed_in_place_and_random_numbers_go_on(device):
    plain, inner = Counter(device), Counter(device)
    replayed = Captured(inner, lambda: [inner.generator])
    for k in range(WARM + 4):
        given = Pair(torch.tensor([1.0, float(k)], device=device), None)
        expected, got = plain(given), replayed(given)
        assert expected.keys() == got.keys()
        for name in expected:
            assert torch.equal(expected[name], got[name]), (k, name)
    assert plain.runs == WARM + 4 and inner.runs == WARM + 1, "the rest was replayed without Python"
    assert torch.equal(plain.total, inner.total)
    assert torch.equal(plain.generator.get_state(), inner.generator.get_state())


def test_every_shape_has_its_own_recording(device):
    runs = []

    def work(x: Tensor) -> Tensor:
        runs.append(x.shape[0])
        return x.cumsum(0)[-1]

    replayed = Captured(work)
    for _ in range(WARM + 3):
        for size in (2, 5):
            assert replayed(torch.arange(float(size), device=device)).item() == size * (size - 1) / 2
    assert sorted(runs) == [2] * (WARM + 1) + [5] * (WARM + 1)


def learner(device: torch.device):
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 1)).to(device)
    optimiser = Optimiser(net, lr=0.05, weight_decay=0.1, decay_all=False, warmup=10, clip=0.5)

    def fit(x: Tensor) -> tuple[Tensor, Tensor]:
        loss = (net(x).squeeze(-1) - x.sum(-1)).square().mean()
        return loss.detach(), optimiser.step(loss, twice=True)

    return net, optimiser, fit


def test_an_optimiser_learns_the_same_through_its_warm_up_and_refuses_what_is_not_finite(device):
    (net, optimiser, fit), (other, beside, inner) = learner(device), learner(device)
    replayed = Captured(inner)
    for k in range(40):
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(k)).to(device)
        if k == 20:
            x[0, 0] = torch.inf
        optimiser.begin()
        beside.begin()
        expected, got = fit(x), replayed(x)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert all(value.isfinite().all() for value in net.parameters())
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    assert expected[0] < 0.5, "it learnt something"


def test_a_recording_keeps_no_more_than_what_is_still_needed():
    steps = 50

    def work(x: Tensor) -> Tensor:
        for _ in range(steps):
            x = x * 1.0
        return x

    replayed = Captured(work)
    x = torch.ones(1000)
    for _ in range(WARM + 1):
        replayed(x)
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        out = replayed(x)
    level, peak = 0, 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    assert torch.equal(out, x)
    assert 4000 <= peak <= 4 * 4000, peak
