"""Network parts that the world model and the agent share. They know nothing of either."""
