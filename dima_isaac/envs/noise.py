"""Random numbers that depend on (seed, environment, episode, stream) and nothing else.

A counter-based generator: every number is a hash of its coordinates (two rounds of the 64-bit finaliser of
SplitMix, Steele et al. 2014), so environment i draws the same numbers whatever the number of environments, the thread
count or the order of resets, and a checkpoint needs only the episode counters.

The arithmetic is that of signed 64-bit integers that wrap around, the same in torch and in NumPy. On a CPU it is
NumPy's, which takes a third of the time for the few environments that start at once.
"""

import math
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def _wrap(x: int) -> int:
    """A Python integer as int64 arithmetic would hold it."""
    return (x + (1 << 63)) % (1 << 64) - (1 << 63)


def _shift_right(x: Any, bits: int) -> Any:
    """Logical shift of int64 (``>>`` is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Any) -> Any:
    x = (x ^ _shift_right(x, 30)) * _MIX1
    x = (x ^ _shift_right(x, 27)) * _MIX2
    return x ^ _shift_right(x, 31)


def _torch_device(tensor: Tensor) -> torch.device | None:
    """Where torch computes the draws for ``tensor``; None: NumPy does, on the CPU."""
    return None if tensor.device.type == "cpu" else tensor.device


def _on(device: torch.device | None, array: np.ndarray) -> Any:
    return array if device is None else torch.from_numpy(array).to(device)


@lru_cache(maxsize=16)
def _environments(seed: int, envs: int, device: torch.device | None) -> Any:
    """(E,) the part of the key that does not change from episode to episode."""
    return _on(device, _mix(np.arange(envs, dtype=np.int64) * _GOLDEN + _wrap(seed)))


@lru_cache(maxsize=64)
def _columns(stream: int, sizes: tuple[int, ...], device: torch.device | None) -> tuple[Any, Any]:
    """(sum of sizes,) the stream's and the column's summands, for each column of consecutive streams."""
    streams = np.repeat(np.arange(stream, stream + len(sizes), dtype=np.int64), sizes)
    columns = np.concatenate([np.arange(n, dtype=np.int64) for n in sizes])
    return _on(device, streams * _GOLDEN), _on(device, columns * _GOLDEN)


class Noise:
    """Draws for one reset, keyed by environment and episode; each call takes the next stream."""

    def __init__(self, seed: int, episode: Tensor, mask: Tensor | None = None) -> None:
        """``episode`` (E,) int64 counts each environment's episodes; ``seed`` separates training from evaluation.

        ``mask`` (E,) says for which environments the draws are needed; the other rows are undefined.
        """
        self._seed, self._episode, self._mask, self._stream = seed, episode, mask, 0
        self._device = _torch_device(episode)

    def uniform(self, n: int) -> Tensor:
        """(E, n) float32 in [-1, 1)."""
        return self.uniforms(n)[0]

    def uniforms(self, *sizes: int) -> tuple[Tensor, ...]:
        """What ``uniform`` would return for each of ``sizes`` in turn, computed at once; a size of 0 skips a stream."""
        if not any(sizes):
            self._stream += len(sizes)
            return tuple(torch.empty(len(self._episode), 0, device=self._episode.device) for _ in sizes)
        return (2.0 * self._unit(*sizes) - 1.0).split(sizes, 1)

    def normal(self, n: int) -> Tensor:
        """(E, n) float32 standard normal (Box-Muller)."""
        u, v = self._unit(n).clamp_min(1e-12), self._unit(n)
        return (-2.0 * u.log()).sqrt() * (2.0 * math.pi * v).cos()

    @cached_property
    def _rows(self) -> Any:
        """The environments that are computed; torch computes all, because to select some it would wait for a GPU."""
        return slice(None) if self._mask is None or self._device else np.flatnonzero(self._mask.numpy())

    @cached_property
    def _key(self) -> Any:
        """(rows, 1) int64, made at the first draw: many starts draw nothing."""
        env = _environments(self._seed, len(self._episode), self._device)[self._rows]
        episode: Any = self._episode if self._device else self._episode.numpy()[self._rows]
        return _mix(_mix(env + episode * _GOLDEN) + _GOLDEN)[:, None]

    def _unit(self, *sizes: int) -> Tensor:
        """(E, sum of sizes) float32 in [0, 1): one stream per size."""
        streams, columns = _columns(self._stream + 1, sizes, self._device)
        self._stream += len(sizes)
        bits = _shift_right(_mix(_mix(self._key + streams) + columns), 40)
        if self._device:
            return bits.to(torch.float32) * (1.0 / (1 << 24))
        out = np.zeros((len(self._episode), sum(sizes)), dtype=np.float32)
        out[self._rows] = bits.astype(np.float32) * np.float32(1.0 / (1 << 24))
        return torch.from_numpy(out)
