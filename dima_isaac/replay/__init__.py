"""What happened, kept on the simulator's device, and the windows drawn from it."""
