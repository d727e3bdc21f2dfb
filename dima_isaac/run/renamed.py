"""What stored runs call by another name: configuration keys and state_dict keys of earlier versions.

Run folders and checkpoints are translated when they are read, so the rest of the program uses today's names only.
``renamed.yaml`` has the tables. Torch-free.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

from dima_isaac.errors import CheckpointError

_TABLE = yaml.safe_load(Path(__file__).with_name("renamed.yaml").read_text())
RENAMED: dict[str, str] = _TABLE["renamed"]
DROPPED: dict[str, list[Any]] = _TABLE["dropped"]
MERGED: dict[str, dict[Any, dict[str, Any]]] = _TABLE["merged"]
ADDED: dict[str, Any] = _TABLE["added"]
STATE: dict[str, dict[str, str | None]] = _TABLE["state"]
_MISSING = object()


def renamed_config(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of the stored ``config`` (nested) under today's keys.

    A key that cannot be expressed any more stays where it is; ``check_expressible`` refuses it.
    """
    config = copy.deepcopy(config)
    for old, new in RENAMED.items():
        value = _get(config, old)
        branch_to_leaf = old.startswith(new + ".")  # what else the branch held is constant now
        if value is not _MISSING and (branch_to_leaf or _get(config, new) in (_MISSING, value)):
            _pop(config, old)
            _put(config, new, value)
    for new, meanings in MERGED.items():
        for value, parts in meanings.items():
            stored = {key: _get(config, key) for key in parts}
            present = {key: part for key, part in stored.items() if part is not _MISSING}
            if present and all(part == parts[key] for key, part in present.items()):
                _put(config, new, value)
                for key in present:
                    _pop(config, key)
                break
    for key, accepted in DROPPED.items():  # after MERGED: a value that no longer means anything may be dropped
        if not accepted or _get(config, key) in accepted:
            _pop(config, key)
    for key, value in ADDED.items():
        branch, leaf = _branch(config, key)
        if branch:  # empty where the file has nothing of that part
            branch.setdefault(leaf, value)
    return config


def check_expressible(config: dict[str, Any], where: object) -> None:
    """Refuse a ``renamed_config``, read from ``where``, that needs what this version cannot do.

    Raises:
        CheckpointError: it sets a removed key to a value that meant something else than what is done now.
    """
    gone = [*RENAMED, *DROPPED, *(key for meanings in MERGED.values() for key in next(iter(meanings.values())))]
    left = [f"{key}={value}" for key in gone if (value := _get(config, key)) is not _MISSING]
    if left:
        raise CheckpointError(
            f"{where} was made with {', '.join(left)}, which this version cannot do any more; use the version that"
            " made it (versions.json in the run folder names its commit)."
        )


def renamed_state(state: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint with its state_dicts under today's keys."""
    state = _renamed(state, STATE.get("", {}))
    return {part: _renamed(value, STATE[part]) if part in STATE else value for part, value in state.items()}


def advice(key: str) -> str:
    """For a configuration key that existed once, one sentence about what became of it; '' for any other key."""
    for old, new in RENAMED.items():
        if key == old or key.startswith(old + "."):
            return f"{key} is now called {new + key[len(old) :]}."
    for new, meanings in MERGED.items():
        if any(key in parts for parts in meanings.values()):
            return f"{key} is now part of {new}."
    if key in DROPPED:
        accepted = DROPPED[key]
        return f"{key} no longer exists" + (f"; the program does what {key}={accepted[0]} did." if accepted else ".")
    return ""


def _renamed(state: dict[str, Any], prefixes: dict[str, str | None]) -> dict[str, Any]:
    out = {}
    for name, value in state.items():
        old = next((old for old in prefixes if name == old or name.startswith(old + ".")), "")
        new = prefixes[old] if old else ""
        if new is not None:
            out[new + name[len(old) :]] = value
    return out


def _branch(config: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The dictionary that holds dotted ``key`` ({} if there is none) and the key's last part."""
    *branches, leaf = key.split(".")
    for branch in branches:
        below = config.get(branch)
        config = below if isinstance(below, dict) else {}
    return config, leaf


def _get(config: dict[str, Any], key: str) -> Any:
    branch, leaf = _branch(config, key)
    return branch.get(leaf, _MISSING)


def _pop(config: dict[str, Any], key: str) -> None:
    branch, leaf = _branch(config, key)
    branch.pop(leaf, None)


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    *branches, leaf = key.split(".")
    for branch in branches:
        config = config.setdefault(branch, {})
    config[leaf] = value
