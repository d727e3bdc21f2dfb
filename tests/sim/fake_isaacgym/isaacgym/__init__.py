"""A stand-in for Isaac Gym Preview 4 that enforces the contract of its calls and simulates with MuJoCo.

Written from descriptions of the real one's behaviour; it proves that a caller keeps the rules, not that PhysX agrees.
There is no gymtorch, and torch cannot be imported: the last one for Python 3.8 has no kernels for newer GPUs. Its GPU
is memory of the host.
"""

import ctypes
import sys

from isaacgym.driver import Driver

if "torch" in sys.modules:
    raise ImportError("PyTorch was imported before isaacgym modules.")
sys.modules["torch"] = None
_library = ctypes.CDLL
ctypes.CDLL = lambda name, *rest: Driver() if name == "libcuda.so.1" else _library(name, *rest)
