"""What stored runs call by another name: configuration keys and state_dict keys of earlier versions.

Run folders and checkpoints are translated when they are read, so the rest of the program knows today's names only. Add
an entry here whenever a key of the configuration or of a module's state_dict is renamed or removed. Torch-free.
"""

from __future__ import annotations

import copy
from typing import Any

from dima_isaac.errors import CheckpointError

RENAMED: dict[str, str] = {
    "world_model.exact_echo": "world_model.copy_last_action",
}
"""Old dotted key (a leaf or a branch) -> today's."""

DROPPED: dict[str, tuple[Any, ...]] = {
    "world_model.denoiser.members": (1,),
    "world_model.denoiser.linear_skip": (False,),
    "world_model.decoder.levels": (),
    "world_model.decoder.revive": (0.0, 0.1),  # 0.1, the default, meant nothing without a learned decoder
    "agent.actor.kind": ("gaussian",),
    "agent.kl_stop": (0.0,),
}
"""Removed dotted key -> the stored values that mean what the program does now; () where any value does."""

STATE: dict[str, dict[str, str | None]] = {
    "world": {"space.relevance": "space.value_weights"},
}
"""Part of a checkpoint -> {old key or prefix (up to a dot) -> today's, None where it is no longer needed}."""

_MISSING = object()


def renamed_config(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of the stored ``config`` (nested) under today's keys.

    A removed key stays where its value cannot be expressed any more; ``check_dropped`` refuses it.
    """
    config = copy.deepcopy(config)
    for old, new in RENAMED.items():
        value = _pop(config, old)
        if value is not _MISSING:
            _put(config, new, value)
    for key, accepted in DROPPED.items():
        value = _pop(config, key)
        if value is not _MISSING and accepted and value not in accepted:
            _put(config, key, value)
    return config


def check_dropped(config: dict[str, Any], where: object) -> None:
    """Refuse a ``renamed_config``, read from ``where``, that needs what this version cannot do.

    Raises:
        CheckpointError: it sets a removed key to a value that meant something else than what is done now.
    """
    for key, accepted in DROPPED.items():
        value = _pop(copy.deepcopy(config), key)
        if value is not _MISSING:
            kept = " or ".join(map(str, accepted))
            raise CheckpointError(
                f"{where} was made with {key}={value}, which this version no longer has (it does what {kept} did);"
                " use the version that made it (versions.json in the run folder names its commit)."
            )


def renamed_state(state: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint with its state_dicts under today's keys."""
    state = dict(state)
    for part, prefixes in STATE.items():
        if part in state:
            names = {name: _renamed(name, prefixes) for name in state[part]}
            state[part] = {names[name]: value for name, value in state[part].items() if names[name] is not None}
    return state


def advice(key: str) -> str:
    """For a configuration key that existed once, one sentence about what became of it; '' for any other key."""
    for old, new in RENAMED.items():
        if key == old or key.startswith(old + "."):
            return f"{key} is now called {new + key[len(old) :]}."
    for old, accepted in DROPPED.items():
        if key == old or key.startswith(old + "."):
            return f"{key} no longer exists" + (
                f"; the program does what {old}={accepted[0]} did." if accepted else "."
            )
    return ""


def _renamed(name: str, prefixes: dict[str, str | None]) -> str | None:
    for old, new in prefixes.items():
        if name == old or name.startswith(old + "."):
            return None if new is None else new + name[len(old) :]
    return name


def _pop(config: dict[str, Any], key: str) -> Any:
    """Remove dotted ``key`` from the nested ``config`` and return its value, or _MISSING."""
    *branches, leaf = key.split(".")
    for branch in branches:
        config = config.get(branch, {})
        if not isinstance(config, dict):
            return _MISSING
    return config.pop(leaf, _MISSING)


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    *branches, leaf = key.split(".")
    for branch in branches:
        config = config.setdefault(branch, {})
    config[leaf] = value
