"""Laps, busy time and waits, by hand-computed numbers."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from dima_isaac.bench.timing import Laps, _works, busy, covered, memory, waits
from dima_isaac.bench.train import Stopwatch

CPU = torch.device("cpu")


def test_overlapping_spans_are_counted_once():
    assert covered([]) == 0
    assert covered([(5, 7), (0, 3), (2, 4), (6, 6), (4, 5)]) == 7  # 0 to 7, all of it
    assert covered([(0, 10), (2, 3), (20, 21)]) == 11


def test_annotations_and_waits_are_no_work():
    def event(name: str, device: str = "DeviceType.CUDA", annotation: bool = False) -> SimpleNamespace:
        return SimpleNamespace(
            name=lambda: name, device_type=lambda: device, is_user_annotation=lambda: annotation
        )  # fmt: skip

    assert _works(event("void gemm<float>")) and _works(event("Memcpy DtoH"))
    assert not _works(event("cudaLaunchKernel", "DeviceType.CPU"))
    assert not _works(event("## Optimizer.step ##", annotation=True)) and not _works(event("Stream Sync"))


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_a_lap_belongs_to_the_mark_before_it(clock):
    laps = Laps(CPU)
    for name, seconds in (("a", 2.0), ("b", 3.0), (None, 100.0), ("a", 4.0)):
        laps.mark(name)
        clock[0] += seconds
    assert laps.read() == {"a": 2.0, "b": 3.0}  # the last lap has not ended
    laps.mark(None)
    clock[0] += 50.0
    assert laps.read() == {"a": 6.0, "b": 3.0}


def test_a_stopwatch_charges_the_innermost_call(clock):
    class Work:
        def inner(self):
            clock[0] += 1.0

        def outer(self):
            clock[0] += 10.0
            self.inner()
            clock[0] += 5.0

    work, watch = Work(), Stopwatch(CPU)
    watch.wrap(work, "inner", "dream")
    watch.wrap(work, "outer", "collect")
    work.outer()
    clock[0] += 1000.0
    work.inner()
    spent = watch.read()
    assert spent["collect"] == 15.0 and spent["dream"] == 2.0 and spent["policy"] == 0.0


def test_a_cpu_has_nothing_to_tell():
    assert memory(CPU) is None and waits(lambda: None, CPU) is None and busy(lambda: None, CPU) is None


@pytest.mark.gpu
def test_a_gpu_tells():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    device = torch.device("cuda:0")
    x = torch.ones(1 << 20, device=device)
    assert waits(lambda: x + 1.0, device) == 0
    assert waits(lambda: (x.sum().item(), x.max().item()), device) >= 2
    found = memory(device)
    assert found is not None and 4 << 20 <= found["torch_peak"] <= found["taken"] <= found["total"]
    share = busy(lambda: (torch.cuda._sleep(200_000_000), time.sleep(0.2)), device)
    assert share is not None and 0.0 < share < 1.0
    laps = Laps(device)
    laps.mark("asleep")
    torch.cuda._sleep(200_000_000)
    laps.mark(None)
    assert 0.05 < laps.read()["asleep"] < 2.0
