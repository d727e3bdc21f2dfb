"""The roofline model: a rate is bounded by operations over the matrix product rate and bytes over the bandwidth.

Both rates are measured on the same device and number of threads, right after the figure that they bound, so that other
load on the machine lowers both sides alike. Williams, Waterman and Patterson, 2009.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from dima_isaac.training.clock import DeviceTimer

_SIDE = {"cpu": 1024, "cuda": 8192}  # of the square matrices that are multiplied
_LAUNCHES = {"cpu": 1, "cuda": 10}  # in a row: one alone would be over before the clocks of a GPU are up
_BYTES = {"cpu": 1 << 28, "cuda": 1 << 31}  # of the buffer that is copied: far beyond any cache


@dataclass(frozen=True)
class Limits:
    """The best rates measured on a device."""

    flops_per_s: float  # a multiply-add is two
    bytes_per_s: float  # read and written
    dtype: str  # of the multiplied matrices


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


def bound(limits: Limits, rate: float, flops: float, moved: float) -> dict[str, Any]:
    """How close ``rate`` units/s, each of ``flops`` operations and ``moved`` bytes at the least, comes to ``limits``.

    Returns ``flops`` and ``bytes`` of a unit, ``limit_per_s``, the rate at which the slower of the two is saturated,
    ``bound_by`` (flops or bytes), ``share`` of that limit, and ``device``, the limits.

    Raises:
        ValueError: a unit that needs nothing has no limit.
    """
    if flops <= 0.0 and moved <= 0.0:
        raise ValueError("a unit without operations and bytes has no limit")
    computing, moving = flops / limits.flops_per_s, moved / limits.bytes_per_s
    limit, bound_by = 1.0 / max(computing, moving), "flops" if computing >= moving else "bytes"
    unit = {"flops": flops, "bytes": moved, "limit_per_s": limit, "bound_by": bound_by}
    return {**unit, "share": rate / limit, "device": asdict(limits)}


def sentence(what: str, bound: dict[str, Any]) -> str:
    """A ``bound`` as one line of text."""
    device = bound["device"]
    computes, moves = device["flops_per_s"] / 1e9, device["bytes_per_s"] / 1e9
    return (
        f"{what}: {bound['flops'] / 1e6:,.3f} MFLOP, {bound['bytes'] / 1e3:,.1f} kB; at {computes:,.1f} GFLOP/s"
        f" ({device['dtype']}) and {moves:,.1f} GB/s the limit is {bound['limit_per_s']:,.0f}/s, set by"
        f" {bound['bound_by']}; {100.0 * bound['share']:.2f} % of it is reached"
    )


def weight_bytes(module: nn.Module | None) -> int:
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
