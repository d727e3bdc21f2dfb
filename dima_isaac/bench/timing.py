"""Times and the best rate of a device, and of a GPU its memory, its utilisation and the waits of the host for it."""

import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
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


def gpu_utilization(work: Callable[[], Any], device: torch.device) -> float | None:
    """The share of the time of ``work`` in which at least one kernel or copy ran on a GPU, by its own trace.

    The trace slows the host down, so the true share is rather higher. None on a CPU and where no trace could be had.
    """
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    synchronize(device)
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        work()
        synchronize(device)
        spent = time.perf_counter() - began
    found = trace.profiler.kineto_results.events() if trace.profiler is not None else []
    spans = [(one.start_ns(), one.start_ns() + one.duration_ns()) for one in found if _is_work(one)]
    return union_length(spans) / 1e9 / spent if spans else None


def _is_work(event: Any) -> bool:
    """Whether an event of a trace is a kernel or a copy: annotations and synchronisations cover idle time, too."""
    on_gpu = "CUDA" in str(event.device_type()) and not event.is_user_annotation()
    return on_gpu and "sync" not in event.name().lower()


def union_length(spans: Iterable[tuple[int, int]]) -> int:
    """The length of the union of intervals [start, stop)."""
    total, end = 0, None
    for start, stop in sorted(spans):
        if end is None or start > end:
            total, end = total + stop - start, stop
        elif stop > end:
            total, end = total + stop - end, stop
    return total


def median_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """The median of the rounds' ratios a / b."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))
