"""Programs written for NVIDIA's Isaac Gym, on the engines of this package; see docs/gym.md.

    python -m dima_isaac.gym SCRIPT ...

gives SCRIPT an ``isaacgym`` made of this package's modules, in that process only. Nothing here is NVIDIA's code.
"""
