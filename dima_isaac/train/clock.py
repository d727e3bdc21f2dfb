"""Counters into decisions: when something is due, and how often, counted in environment steps; and work per second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Every:
    """True once for every ``steps`` environment steps that went by, from ``start`` on; never if ``steps`` is 0."""

    def __init__(self, steps: int, start: int = 0) -> None:
        self.steps, self.start = steps, start
        self.next = start

    def __call__(self, now: int) -> bool:
        if self.steps <= 0 or now < self.next:
            return False
        self.next = now - (now - self.start) % self.steps + self.steps
        return True


class Ratio:
    """How many updates are due so that updates / environment steps stays at ``per_step`` from ``start`` on."""

    def __init__(self, per_step: float, start: int = 0) -> None:
        self.per_step, self.start = per_step, start
        self.done = 0

    def __call__(self, now: int) -> int:
        due = int((now - self.start) * self.per_step + 1e-6) - self.done
        if due <= 0:
            return 0
        self.done += due
        return due


class Rate:
    """Work per second of the device's own time, read without waiting for it in between.

    A GPU still computes when Python has gone on, so there the time is that between two events on its stream.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._device = device
        self._amount = self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def of(self, amount: float) -> Iterator[None]:
        """The body does ``amount`` of work; a body without work is not timed."""
        began, start = time.perf_counter(), self._mark()
        yield
        if amount <= 0:
            return
        self._amount += amount
        stop = self._mark()
        if start is not None and stop is not None:
            self._events.append((start, stop))
        else:
            self._seconds += time.perf_counter() - began

    def read(self) -> float | None:
        """The rate since the last reading, None without work. Waits for a GPU: for where numbers are fetched anyway."""
        for start, stop in self._events:
            stop.synchronize()
            self._seconds += start.elapsed_time(stop) / 1000.0
        rate = self._amount / max(self._seconds, 1e-9) if self._amount else None
        self._amount, self._seconds, self._events = 0.0, 0.0, []
        return rate

    def _mark(self) -> torch.cuda.Event | None:
        if not self._on_gpu:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
