"""Multi-Agent MuJoCo: the gymnasium robots, their joints shared out among agents."""
