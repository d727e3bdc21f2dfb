"""What is due at which environment step and how often, and how fast work is done."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dima_isaac.training.config import TrainConfig


class Every:
    """True once for every ``steps`` environment steps that went by, from ``start`` on; never if ``steps`` is 0."""

    def __init__(self, steps: int, start: int = 0) -> None:
        self.steps, self.start = steps, start
        self.next = start

    def pending(self, now: int) -> bool:
        """Whether it is due, without counting it as done."""
        return self.steps > 0 and now >= self.next

    def __call__(self, now: int) -> bool:
        if not self.pending(now):
            return False
        self.next = now - (now - self.start) % self.steps + self.steps
        return True


class Ratio:
    """How many updates are due so that updates / environment steps stays at ``per_step`` from ``start`` on."""

    def __init__(self, per_step: float, start: int = 0) -> None:
        self.per_step, self.start = per_step, start
        self.done = 0

    def pending(self, now: int) -> int:
        """Those not done yet; the caller adds those it makes to ``done``."""
        return max(0, int((now - self.start) * self.per_step + 1e-6) - self.done)


class Schedule:
    """The clocks of a training run, in environment steps."""

    def __init__(self, cfg: TrainConfig, updates_due: dict[str, Ratio]) -> None:
        """``updates_due`` counts updates by name."""
        self.learning_due = Every(cfg.learn.round, cfg.learn.start)
        self.evaluation_due = Every(cfg.eval.every)
        self.probe_due = Every(cfg.probe_every, cfg.probe_every)
        self.checkpoint_due = Every(cfg.checkpoint.every, cfg.checkpoint.every)
        self.updates_due = updates_due
        self._every = {name.removesuffix("_due"): due for name, due in vars(self).items() if isinstance(due, Every)}

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


class DeviceTimer:
    """Seconds between marks, charged to the name that each mark gives to what follows.

    On a GPU a mark is an event on its stream: a span ends when the work issued before the mark has ended, and nothing
    waits before ``read``.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._seconds = device, dict[str, float]()
        self._marks: list[tuple[str | None, Any]] = []

    def mark(self, name: str | None) -> None:
        """Charge what follows to ``name``, or to nothing."""
        self._marks.append((name, self._now()))

    def read(self) -> dict[str, float]:
        """Seconds by name since construction, up to the last mark."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        for (name, start), (_, stop) in zip(self._marks, self._marks[1:], strict=False):
            if name is not None:
                spent = stop - start if isinstance(start, float) else start.elapsed_time(stop) / 1000.0
                self._seconds[name] = self._seconds.get(name, 0.0) + spent
        del self._marks[:-1]
        return dict(self._seconds)

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


class Throughput:
    """Work per second of the device's own time, measured without waiting for the device in between."""

    def __init__(self, device: torch.device) -> None:
        self._timer = DeviceTimer(device)
        self._amount = self._before = 0.0

    @contextmanager
    def of(self, amount: float) -> Iterator[None]:
        """The body does ``amount`` of work; a body without work is not timed."""
        self._timer.mark("work" if amount > 0 else None)
        yield
        self._timer.mark(None)
        self._amount += amount

    def read(self) -> float | None:
        """The rate since the last reading, None without work. Waits for a GPU: for where numbers are fetched anyway."""
        if not self._amount:
            return None
        seconds = self._timer.read()["work"]
        rate = self._amount / max(seconds - self._before, 1e-9)
        self._amount, self._before = 0.0, seconds
        return rate
