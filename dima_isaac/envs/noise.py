"""Random numbers that depend on (seed, environment, episode, stream) and nothing else.

A counter-based generator: every number is a hash of its coordinates (two rounds of the 64-bit finaliser of
SplitMix, Steele et al. 2014), so environment i draws the same whatever the number of environments, the thread
count or the order of resets, and a checkpoint needs only the episode counters.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift of int64 (torch's own is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _wrap(x: int) -> int:
    """A Python integer as int64 arithmetic would hold it."""
    return (x + (1 << 63)) % (1 << 64) - (1 << 63)


def _mix(x: Tensor) -> Tensor:
    return _mix_on_host(x) if x.device.type == "cpu" else _mix_on_device(x)


def _mix_on_device(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX1
    x = (x ^ _shift_right(x, 27)) * _MIX2
    return x ^ _shift_right(x, 31)


def _mix_on_host(x: Tensor) -> Tensor:
    """The same bits: NumPy has unsigned integers, and starts an operation in a fraction of torch's time."""
    bits: np.ndarray = x.numpy().view(np.uint64)
    bits = (bits ^ (bits >> 30)) * np.uint64(_MIX1 % (1 << 64))
    bits = (bits ^ (bits >> 27)) * np.uint64(_MIX2 % (1 << 64))
    return torch.from_numpy((bits ^ (bits >> 31)).view(np.int64))


class Noise:
    """Draws for one reset: keyed by environment and episode, one stream per call, in call order."""

    def __init__(self, seed: int, episode: Tensor) -> None:
        """``episode`` (E,) int64 counts each environment's episodes; ``seed`` separates training from evaluation."""
        env = torch.arange(episode.shape[0], device=episode.device, dtype=torch.int64)
        self._key = _mix(_mix(_mix(env * _GOLDEN + _wrap(seed)) + episode * _GOLDEN) + _GOLDEN)
        self._stream = 0

    def uniform(self, n: int) -> Tensor:
        """(E, n) float32 in [-1, 1)."""
        return 2.0 * self._unit(n) - 1.0

    def normal(self, n: int) -> Tensor:
        """(E, n) float32 standard normal (Box-Muller)."""
        u, v = self._unit(n).clamp_min(1e-12), self._unit(n)
        return (-2.0 * u.log()).sqrt() * (2.0 * math.pi * v).cos()

    def _unit(self, n: int) -> Tensor:
        self._stream += 1
        column = torch.arange(n, device=self._key.device, dtype=torch.int64)
        bits = _mix(_mix(self._key.unsqueeze(1) + _wrap(self._stream * _GOLDEN)) + column * _GOLDEN)
        return _shift_right(bits, 40).to(torch.float32) * (1.0 / (1 << 24))
