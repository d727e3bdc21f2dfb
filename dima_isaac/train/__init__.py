"""The loop, and a run that one can live with: progress, checkpoints, evaluation, probes."""
