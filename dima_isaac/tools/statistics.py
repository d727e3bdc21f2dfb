"""Averages that few seeds can carry: interquartile mean and bootstrap (Agarwal et al., NeurIPS 2021), and Wilson's
interval of a proportion."""

import numpy as np

Array = np.ndarray
RESAMPLES = 2000


def iqm(scores: Array) -> Array:
    """Interquartile mean over axis 0: a quarter of the scores, rounded down, is cut from each end."""
    ordered = np.sort(np.asarray(scores, dtype=float), axis=0)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut].mean(0)


def bootstrap(scores: Array) -> tuple[Array, Array]:
    """Ends of the 95 % percentile interval of the ``iqm`` over resampled ``scores`` (runs, ...), (...) each.

    A single score gives an interval of no width.
    """
    rng = np.random.default_rng(0)
    drawn = [iqm(scores[rng.integers(len(scores), size=len(scores))]) for _ in range(RESAMPLES)]
    lower, upper = np.percentile(np.stack(drawn), [2.5, 97.5], axis=0)
    return lower, upper


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Ends of the 95 % interval of a proportion (Wilson 1927); it has a width for none and for all, too."""
    z, share = 1.959964, successes / count
    middle, half = share + z * z / (2 * count), z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = ((middle + sign * half) / (1 + z * z / count) for sign in (-1, 1))
    return max(0.0, float(low)), min(1.0, float(high))
