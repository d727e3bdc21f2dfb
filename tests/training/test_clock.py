"""What is due when, and how fast work is done."""

import pytest
import torch

from dima_isaac.training.clock import Every, Ratio, Throughput


def test_every_fires_once_per_interval_whatever_the_stride():
    clock = Every(1_000, start=4_000)
    fired = [now for now in range(0, 10_000, 64) if clock(now)]
    assert fired[0] == 4_032 and len(fired) == 6
    assert [now // 1_000 for now in fired] == [4, 5, 6, 7, 8, 9]
    assert not any(Every(0)(now) for now in range(100))


def test_every_skips_missed_intervals():
    clock = Every(100)
    assert clock(0) and clock(950) and not clock(999) and clock(1_000)


def test_what_is_pending_stays_so_until_it_is_done():
    clock = Every(100)
    assert clock.pending(150) and clock.pending(150) and clock(150) and not clock.pending(150)


def test_ratio_keeps_updates_per_step_for_any_stride():
    for stride in (1, 64, 1_000, 2_048):
        ratio = Ratio(0.2, start=4_000)
        for now in range(0, 102_400 + 1, stride):
            ratio.done += ratio.pending(now)
        last = (102_400 // stride) * stride
        assert ratio.done == int((last - 4_000) * 0.2 + 1e-6)


def test_ratio_tolerates_rounding():
    assert int(100 * 0.29) == 28 and Ratio(0.29).pending(100) == 29


def test_a_rate_counts_only_the_time_of_its_work(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("dima_isaac.training.clock.time.perf_counter", lambda: now[0])
    rate = Throughput(torch.device("cpu"))
    assert rate.read() is None
    for amount, seconds in ((30, 2.0), (0, 100.0), (30, 4.0)):
        with rate.of(amount):
            now[0] += seconds
        now[0] += 7.0
    assert rate.read() == pytest.approx(10.0)
    assert rate.read() is None


@pytest.mark.gpu
def test_a_rate_is_the_gpu_s_own_time_not_that_of_launching():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    rate = Throughput(torch.device("cuda"))
    with rate.of(1.0):
        torch.cuda._sleep(1_000_000_000)  # clock cycles: half a second at 2 GHz, launched in microseconds
    measured = rate.read()
    assert measured is not None and 0.5 < measured < 10.0
