"""Speed, measured: ``scripts/bench.py``."""
