"""Averages that few seeds can carry: interquartile mean and bootstrap (Agarwal et al., NeurIPS 2021)."""

from collections.abc import Callable

import numpy as np

Array = np.ndarray
RESAMPLES = 2000


def iqm(scores: Array) -> Array:
    """Interquartile mean over axis 0: a quarter of the scores, rounded down, is cut from each end."""
    ordered = np.sort(np.asarray(scores, dtype=float), axis=0)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut].mean(0)


def mean(scores: Array) -> Array:
    """Mean over axis 0."""
    return np.asarray(scores, dtype=float).mean(0)


def bootstrap(scores: Array, statistic: Callable[[Array], Array] = iqm) -> tuple[Array, Array]:
    """Ends of the 95 % percentile interval of ``statistic`` over resampled ``scores`` (runs, ...), (...) each.

    A single score gives an interval of no width.
    """
    rng = np.random.default_rng(0)
    drawn = [statistic(scores[rng.integers(len(scores), size=len(scores))]) for _ in range(RESAMPLES)]
    lower, upper = np.percentile(np.stack(drawn), [2.5, 97.5], axis=0)
    return lower, upper
