"""A stand-in for Isaac Gym Preview 4 that enforces the contract of its calls and simulates with MuJoCo.

Written from descriptions of the real one's behaviour; it proves that a caller keeps the rules, not that PhysX agrees.
"""

import sys

if "torch" in sys.modules:
    raise ImportError("PyTorch was imported before isaacgym modules.")
