"""DIMA's world model: target, denoiser, reward and continuation, held-out error, and the rollouts imagined in it."""
