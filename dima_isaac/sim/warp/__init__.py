"""MuJoCo-Warp on an NVIDIA GPU."""
