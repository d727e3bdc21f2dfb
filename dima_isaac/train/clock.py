"""What is due at which environment step and how often, and how fast work is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dima_isaac.train.config import TrainConfig


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
        due = max(0, int((now - self.start) * self.per_step + 1e-6) - self.done)
        self.done += due
        return due


class Schedule:
    """The clocks of a training run; each call with the environment steps taken counts as done what it says is due."""

    def __init__(self, cfg: TrainConfig, updates_due: dict[str, Ratio]) -> None:
        """``updates_due`` counts updates by name."""
        self.learning_due = Every(cfg.learn.round, cfg.learn.start)
        self.evaluation_due = Every(cfg.eval.every)
        self.probe_due = Every(cfg.probe_every, cfg.probe_every)
        self.checkpoint_due = Every(cfg.checkpoint.every, cfg.checkpoint.every)
        self.updates_due = updates_due
        self._every = {
            "learning": self.learning_due,
            "evaluation": self.evaluation_due,
            "probe": self.probe_due,
            "checkpoint": self.checkpoint_due,
        }

    def state_dict(self) -> dict[str, int]:
        """When each clock is due next and how many of each kind of update are done."""
        next_steps = {name: every.next for name, every in self._every.items()}
        return {**next_steps, **{name: ratio.done for name, ratio in self.updates_due.items()}}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from ``state_dict``."""
        for name, every in self._every.items():
            every.next = state[name]
        for name, ratio in self.updates_due.items():
            ratio.done = state[name]


class Throughput:
    """Work per second of the device's own time, measured without waiting for the device in between.

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
        began, start = time.perf_counter(), self._event()
        yield
        if amount <= 0:
            return
        self._amount += amount
        stop = self._event()
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

    def _event(self) -> torch.cuda.Event | None:
        if not self._on_gpu:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
