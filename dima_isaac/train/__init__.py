"""Training: the loop, its schedule and persistence, evaluation, probes, videos, and the baselines."""
