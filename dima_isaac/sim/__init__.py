"""Physics: E copies of one scene as tensors. It has no notion of rewards, agents or episodes."""
