"""Counters into decisions: when something is due, and how often, counted in environment steps."""

from __future__ import annotations


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
