"""Programs over finished or running runs: evaluate, play, plot."""
