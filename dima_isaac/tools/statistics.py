"""Averages that few seeds can carry: interquartile mean and stratified bootstrap (Agarwal et al., NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray


def iqm(scores: Array) -> Array:
    """Interquartile mean over axis 0: a quarter of the scores, rounded down, is cut from each end."""
    ordered = np.sort(np.asarray(scores, dtype=float), axis=0)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut].mean(0)


def mean(scores: Array) -> Array:
    """Mean over axis 0."""
    return np.asarray(scores, dtype=float).mean(0)


def bootstrap(
    strata: Sequence[Array],
    statistic: Callable[[Array], Array] = iqm,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Percentile interval of ``statistic`` over all scores, resampled within each stratum.

    ``strata`` are arrays (runs, ...) with the same trailing shape, for example one for each task. Returns the lower
    and the upper end, of the trailing shape. A single score gives an interval of no width.
    """
    rng = np.random.default_rng(seed)
    strata = [np.asarray(scores, dtype=float) for scores in strata]
    drawn = [
        statistic(np.concatenate([scores[rng.integers(len(scores), size=len(scores))] for scores in strata]))
        for _ in range(resamples)
    ]
    tail = 50.0 * (1.0 - level)
    lower, upper = np.percentile(np.stack(drawn), [tail, 100.0 - tail], axis=0)
    return lower, upper
