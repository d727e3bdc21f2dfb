"""Exceptions of Python, torch and the simulators that a user can mend, as one sentence with the cure.

Everything else is a mistake of ours and keeps its traceback.
"""

import errno
import os
import re
import traceback

_FULL = re.compile(
    r"out of memory|Failed to allocate \d+ bytes|(can't|could not|cannot|unable to) allocate|bad_alloc"
    r"|(?P<threads>thread constructor failed|can't start new thread)",
    re.IGNORECASE,
)
"""What torch, Warp, NumPy, MuJoCo and the C++ library say when the system gives them no more memory or threads."""

_LOWER = {
    "sim": "num_envs or train.eval.episodes",
    "envs": "num_envs or train.eval.episodes",
    "replay": "replay.capacity or train.learn.dynamics_batch",
    "world_model": "train.learn.dynamics_batch, train.learn.dreams or scale",
    "agent": "train.learn.dreams or scale",
}
"""Package whose code needed the memory -> the settings that decide how much it needs."""

_WRONG_PATH = (errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG), "make room, or choose another folder"),
    **dict.fromkeys(_WRONG_PATH, "choose another path"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN), "see whether its disk is there"),
}


def explain(error: Exception) -> str:
    """What ``error`` means for the user and what mends it, or '' if that is not known."""
    words = " ".join(str(error).split())
    found = _FULL.search(words)
    if found and found["threads"]:
        return f"no more threads can be started ({words}); lower threads or engine.threads."
    if found or isinstance(error, MemoryError):
        reason = next((part for part in re.split(r"\. (?=[A-Z])", words) if _FULL.search(part)), words or "MemoryError")
        return f"memory is full ({reason}); lower {_what_to_lower(error)}."
    if isinstance(error, OSError) and error.errno in _CURES:
        where = f" ({error.filename!s:.200})" if error.filename else ""
        return f"{error.strerror}{where}; {_CURES[error.errno]}."
    if (backend := os.environ.get("MUJOCO_GL")) and _from_opengl(error):
        return (
            f"MUJOCO_GL={backend} cannot be used here ({words}); unset it, which is fine without pictures,"
            " or take egl (libegl1), osmesa (libosmesa6), glfw (a display) or disabled."
        )
    if _lacks_a_part_of_mujoco(error):
        return (
            f"mujoco is incomplete ({words}), as an upgrade from 3 to 4 leaves it:"
            " pip uninstall -y mujoco mujoco-core && pip install -e ."
        )
    return ""


def _what_to_lower(error: Exception) -> str:
    """The settings that decide how much memory the code needs that raised ``error``."""
    keys = "num_envs, replay.capacity or scale"
    for frame, _ in traceback.walk_tb(error.__traceback__):
        keys = _LOWER.get("".join(frame.f_globals.get("__name__", "").split(".")[1:2]), keys)
    return keys


def _from_opengl(error: Exception) -> bool:
    """Whether it was raised while MuJoCo imported the OpenGL backend that is named: no physics works then, either."""
    names = {frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)}
    return bool(names & {"mujoco.gl_context", "mujoco.rendering.classic.gl_context"})


def _lacks_a_part_of_mujoco(error: Exception) -> bool:
    """Whether mujoco is there in part: pip writes mujoco-core 4, then removes files of the same names as mujoco 3's."""
    if isinstance(error, AttributeError):
        return getattr(error.obj, "__name__", "") == "mujoco"
    name = str(error.name) if isinstance(error, ImportError) else ""
    return name.startswith("mujoco.") or (name == "mujoco" and not isinstance(error, ModuleNotFoundError))
