"""The best rate of a device, and of a GPU its memory and the waits of the host for it."""

import statistics
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dima_isaac.training.clock import DeviceTimer


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations/s (a multiply-add is two) of the fastest of six products of large square matrices."""
    side, launches = (8192, 10) if device.type == "cuda" else (1024, 1)  # one launch would end before the clocks are up
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out, seconds = torch.empty_like(a), float("inf")
    for _ in range(6):
        timer = DeviceTimer(device)
        timer.mark("product")
        for _ in range(launches):
            torch.mm(a, b, out=out)
        timer.mark(None)
        seconds = min(seconds, timer.read()["product"] / launches)
    return 2.0 * side**3 / seconds


def gpu_memory(device: torch.device) -> dict[str, int] | None:
    """Bytes on a GPU: torch's peak, and all that is taken now (Warp's share and other programs' too); else None."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return {"torch_peak": torch.cuda.max_memory_allocated(device), "taken": total - free, "total": total}


def count_synchronizations(work: Callable[[], Any], device: torch.device) -> int | None:
    """How often ``work`` makes the host wait for a GPU, as torch sees it; None on a CPU."""
    if device.type != "cuda":
        return None
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing CUDA operation" in str(one.message) for one in warned)


def median_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """The median of the rounds' ratios a / b."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))
