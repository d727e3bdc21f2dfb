"""Times and synchronisations, by hand-computed numbers."""

from __future__ import annotations

import time
from functools import partial

import pytest
import torch

from dima_isaac.bench.timing import count_synchronizations, gpu_memory, product_rate
from dima_isaac.bench.train import Profiler
from dima_isaac.training.clock import DeviceTimer

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_a_span_is_charged_to_the_mark_before_it(clock):
    timer = DeviceTimer(CPU)
    for name, seconds in (("a", 2.0), ("b", 3.0), (None, 100.0), ("a", 4.0)):
        timer.mark(name)
        clock[0] += seconds
    assert timer.read() == {"a": 2.0, "b": 3.0}  # the last span has not ended
    timer.mark(None)
    clock[0] += 50.0
    assert timer.read() == {"a": 6.0, "b": 3.0}


def test_a_profiler_charges_the_innermost_call(clock):
    class Work:
        def inner(self):
            clock[0] += 1.0

        def outer(self):
            clock[0] += 10.0
            self.inner()
            clock[0] += 5.0

    work, profiler = Work(), Profiler(CPU)
    profiler.wrap(work, "inner", "dream")
    profiler.wrap(work, "outer", "collect")
    work.outer()
    clock[0] += 1000.0
    work.inner()
    spent = profiler.read()
    assert spent["collect"] == 15.0 and spent["dream"] == 2.0 and spent["policy"] == 0.0


def test_the_product_rate_of_a_device_is_measured():
    assert 1e8 < product_rate(CPU, torch.float32) < 1e15


@pytest.mark.parametrize("ask", [gpu_memory, partial(count_synchronizations, list)])
def test_a_cpu_has_no_figures_of_a_gpu(ask):
    assert ask(CPU) is None


@pytest.mark.gpu
def test_figures_of_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    device = torch.device("cuda:0")
    x = torch.ones(1 << 20, device=device)
    assert count_synchronizations(lambda: x + 1.0, device) == 0
    assert count_synchronizations(lambda: (x.sum().item(), x.max().item()), device) >= 2
    found = gpu_memory(device)
    assert found is not None and 4 << 20 <= found["torch_peak"] <= found["taken"] <= found["total"]
    timer = DeviceTimer(device)
    timer.mark("asleep")
    torch.cuda._sleep(200_000_000)
    timer.mark(None)
    assert 0.05 < timer.read()["asleep"] < 2.0
