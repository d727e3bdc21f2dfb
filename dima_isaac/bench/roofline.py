"""The roofline model: a rate is bounded by operations over the matrix product rate and bytes over the bandwidth.

Both rates are measured on the same device and number of threads, right after the figure that they bound, so that other
load on the machine lowers both sides alike. Williams, Waterman and Patterson, 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from dima_isaac.agent.learner import Learner
from dima_isaac.bench.timing import DeviceTimer

_SIDE = {"cpu": 1024, "cuda": 8192}  # of the square matrices that are multiplied
_LAUNCHES = {"cpu": 1, "cuda": 10}  # in a row: one alone would be over before the clocks of a GPU are up
_BYTES = {"cpu": 1 << 28, "cuda": 1 << 31}  # of the buffer that is copied: far beyond any cache


@dataclass(frozen=True)
class Limits:
    """The best rates measured on a device."""

    flops_per_s: float  # a multiply-add is two
    bytes_per_s: float  # read and written
    dtype: str  # of the multiplied matrices


@dataclass(frozen=True)
class Bound:
    """How close a rate comes to the least time that its operations and its bytes could take."""

    flops: float  # per unit of the rate
    bytes: float  # per unit of the rate, moved at the very least
    limit_per_s: float  # the rate at which the slower of the two would be saturated
    bound_by: str  # flops or bytes
    share: float  # the measured rate over that limit


def measure(device: torch.device, dtype: torch.dtype = torch.float32, repeats: int = 5) -> Limits:
    """The best of ``repeats`` products of square matrices of ``dtype`` and as many copies of a large buffer."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    side, size = _SIDE[kind], _BYTES[kind]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    source = torch.zeros(size // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = _best(lambda: torch.mm(a, b, out=out), device, repeats)
    copy = _best(lambda: target.copy_(source), device, repeats)
    shortened = kind == "cuda" and dtype is torch.float32 and torch.get_float32_matmul_precision() != "highest"
    name = "tfloat32" if shortened else str(dtype).removeprefix("torch.")
    return Limits(2.0 * side**3 / product, float(size) / copy, name)


def bound(limits: Limits, rate: float, flops: float, moved: float) -> Bound:
    """``rate`` units/s, each of which needs ``flops`` operations and moves ``moved`` bytes, against ``limits``.

    Raises:
        ValueError: a unit that needs nothing has no limit.
    """
    if flops <= 0.0 and moved <= 0.0:
        raise ValueError("a unit without operations and bytes has no limit")
    computing, moving = flops / limits.flops_per_s, moved / limits.bytes_per_s
    limit = 1.0 / max(computing, moving)
    return Bound(flops, moved, limit, "flops" if computing >= moving else "bytes", rate / limit)


def report(limits: Limits, found: Bound) -> dict[str, Any]:
    """Both as plain values for the JSON line."""
    return {**asdict(found), "device": asdict(limits)}


def sentence(what: str, limit: dict[str, Any]) -> str:
    """A ``report`` as one line of text."""
    device = limit["device"]
    computes, moves = device["flops_per_s"] / 1e9, device["bytes_per_s"] / 1e9
    rates = f"{computes:,.1f} GFLOP/s ({device['dtype']}) and {moves:,.1f} GB/s"
    return (
        f"{what}: {limit['flops'] / 1e6:,.3f} MFLOP, {limit['bytes'] / 1e3:,.1f} kB; at {rates} the limit is"
        f" {limit['limit_per_s']:,.0f}/s, set by {limit['bound_by']}; {100.0 * limit['share']:.2f} % of it is reached"
    )


def weight_bytes(module: nn.Module | Learner | None) -> int:
    """Bytes of the parameters of ``module``."""
    return 0 if module is None else sum(p.numel() * p.element_size() for p in module.parameters())


def _best(work: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Seconds of one ``work`` at its fastest, by the device's own clock."""
    launches, least = _LAUNCHES["cuda" if device.type == "cuda" else "cpu"], float("inf")
    for _ in range(repeats + 1):  # the first one warms up and counts like the others: the best is taken
        timer = DeviceTimer(device)
        timer.mark("work")
        for _ in range(launches):
            work()
        timer.mark(None)
        least = min(least, timer.read()["work"] / launches)
    return least
