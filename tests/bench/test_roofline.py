"""The limit that operations and bytes set, by hand-computed numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dima_isaac.bench.roofline import Limits, bound, measure, sentence, weight_bytes

DEVICE = Limits(flops_per_s=100e9, bytes_per_s=10e9, dtype="float32")


def test_the_slower_of_computing_and_moving_is_the_limit():
    computing = bound(DEVICE, rate=2_000.0, flops=10e6, moved=100e3)  # 100 us against 10 us
    assert computing["bound_by"] == "flops"
    assert computing["limit_per_s"] == pytest.approx(10_000.0) and computing["share"] == pytest.approx(0.2)
    moving = bound(DEVICE, rate=2_000.0, flops=1e6, moved=1e6)  # 10 us against 100 us
    assert moving["bound_by"] == "bytes" and moving["limit_per_s"] == pytest.approx(10_000.0)
    assert "set by bytes; 20.00 % of it" in sentence("step", moving)
    assert moving["device"]["bytes_per_s"] == 10e9


def test_nothing_has_no_limit():
    with pytest.raises(ValueError, match="no limit"):
        bound(DEVICE, 1.0, 0.0, 0.0)


def test_a_device_is_measured():
    found = measure(torch.device("cpu"), repeats=1)
    assert 1e8 < found.flops_per_s < 1e15 and 1e7 < found.bytes_per_s < 1e13 and found.dtype == "float32"


def test_weights_are_counted_in_bytes():
    assert weight_bytes(nn.Linear(3, 2)) == 4 * (6 + 2)
    assert weight_bytes(nn.Linear(3, 2).to(torch.bfloat16)) == 16 and weight_bytes(None) == 0
