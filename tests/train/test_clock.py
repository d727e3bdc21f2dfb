"""Counters into decisions."""

from dima_isaac.train.clock import Every, Ratio


def test_every_fires_once_per_interval_whatever_the_stride():
    clock = Every(1_000, start=4_000)
    fired = [now for now in range(0, 10_000, 64) if clock(now)]
    assert fired[0] == 4_032 and len(fired) == 6
    assert [now // 1_000 for now in fired] == [4, 5, 6, 7, 8, 9]
    assert not any(Every(0)(now) for now in range(100))


def test_every_skips_missed_intervals():
    clock = Every(100)
    assert clock(0) and clock(950) and not clock(999) and clock(1_000)


def test_ratio_keeps_updates_per_step_for_any_stride():
    for stride in (1, 64, 1_000, 2_048):
        ratio = Ratio(0.2, start=4_000)
        total = sum(ratio(now) for now in range(0, 102_400 + 1, stride))
        last = (102_400 // stride) * stride
        assert total == int((last - 4_000) * 0.2 + 1e-6)
