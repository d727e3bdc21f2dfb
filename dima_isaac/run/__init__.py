"""One run: its configuration as objects, its folder, checkpoints, log and signals."""
