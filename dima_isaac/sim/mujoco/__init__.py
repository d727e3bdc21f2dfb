"""MuJoCo's C engine on a CPU."""
