"""The user's own Isaac Gym, in a worker process."""
