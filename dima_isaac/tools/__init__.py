"""Programs over finished or running runs: evaluate, play, export, plot."""
