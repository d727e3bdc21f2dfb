"""``isaacgym.gymapi``: the calls, structs and constants that programs take from it."""

from enum import IntEnum
from typing import Any

from dima_isaac.gym import structs
from dima_isaac.gym.calls import INVALID_HANDLE as INVALID_HANDLE
from dima_isaac.gym.calls import Gym as Gym
from dima_isaac.gym.gymtorch import GymTensor as Tensor
from dima_isaac.gym.rules import absent

__all__ = ["INVALID_HANDLE", "Gym", "Tensor", "acquire_gym"]

_STRUCTS = {name: kind for name, kind in vars(structs).items() if getattr(kind, "__module__", "") == structs.__name__}
globals().update({name: kind for name, kind in _STRUCTS.items() if not name.startswith("_")})
for _kind in _STRUCTS.values():
    if isinstance(_kind, type) and issubclass(_kind, IntEnum):
        globals().update({member.name: member for member in _kind})  # SIM_PHYSX, ENV_SPACE, ...

_GYM = Gym()


def acquire_gym(*arguments: Any) -> Gym:
    """The object whose methods are the calls; one serves every simulation."""
    return _GYM


__getattr__ = absent("gymapi")
