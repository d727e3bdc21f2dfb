"""Two-handed tasks with the Shadow hand, after the Bi-DexHands benchmark."""
