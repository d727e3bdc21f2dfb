"""Gymnasium's definition of a robot: file, constants and time limit, read from the installed package.

Nothing is copied: constants are the defaults of the constructors of the ``-v5`` environments, found by inspection.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dima_isaac.errors import UsageError

_INSTALL = "pip install 'gymnasium[mujoco]' gymnasium-robotics"


@dataclass(frozen=True)
class Definition:
    """One environment of Gymnasium."""

    constants: dict[str, Any]  # constructor arguments with their defaults
    episode_length: int

    def asset(self, name: str = "") -> str:
        """Path of the robot's MJCF (or of another file beside it)."""
        import gymnasium.envs.mujoco

        folder = Path(str(gymnasium.envs.mujoco.__file__)).parent / "assets"
        return str(folder / (name or str(self.constants["xml_file"])))


def define(scenario: str, changes: Mapping[str, float]) -> Definition:
    """Gymnasium's ``scenario``-v5 with some constants changed.

    Raises:
        UsageError: Gymnasium is not installed, or has no such constant.
    """
    try:
        import gymnasium
        from gymnasium.envs.registration import load_env_creator

        spec = gymnasium.spec(f"{scenario}-v5")
        creator: Any = load_env_creator(str(spec.entry_point))
    except ImportError as error:
        raise UsageError(f"Multi-Agent MuJoCo reads Gymnasium's robots, and {error}; {_INSTALL}.") from error
    parameters = inspect.signature(creator.__init__).parameters.values()
    constants = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    known = sorted(name for name, value in constants.items() if type(value) in (int, float) or _switch(name))
    for name in changes:
        if name not in known:
            raise UsageError(f"{scenario} has no constant '{name}'. Known: {', '.join(known)}.")
    constants |= {name: type(constants[name])(value) for name, value in changes.items()}
    return Definition(constants, int(spec.max_episode_steps or 1000))


def included(constants: dict[str, Any], field: str) -> bool:
    """Whether the state holds MjData's ``field``: Gymnasium's ``include_<field>_in_observation``, where it has one."""
    return bool(constants.get(f"include_{field}_in_observation", True))


def _switch(name: str) -> bool:
    return name.startswith("include_") and name.endswith("_in_observation")
