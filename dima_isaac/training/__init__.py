"""Training: the loops, their schedule and persistence, evaluation, probes, videos, and the baselines."""
