"""Physics: E copies of one scene as tensors. Knows nothing of rewards, agents or episodes."""
