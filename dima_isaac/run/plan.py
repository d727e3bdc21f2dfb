"""Where a run will be: the folder that a configuration leads to, and what a continuation there must agree on.

Torch-free, and nothing is created: a folder that cannot be used is refused before torch is imported.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dima_isaac.config import FREE, RunConfig, is_read
from dima_isaac.errors import CheckpointError, UsageError
from dima_isaac.run import lock
from dima_isaac.run.folder import LATEST, RESUME, ROOT, has_begun, read_config
from dima_isaac.run.renamed import check_expressible
from dima_isaac.schema import AUTO, leaves


@dataclass
class Plan:
    """Where a run will be."""

    path: Path
    stored: dict[str, Any] | None  # the configuration of the run to continue there, if it is one


def plan(cfg: RunConfig) -> Plan:
    """Choose the folder for ``cfg`` and check that it can be used.

    Raises:
        CheckpointError: there is no run to continue, or its configuration cannot be read.
        UsageError: in use, not writable, holding another run, or made with other settings.
    """
    if cfg.run_dir:
        named = os.path.expanduser(cfg.run_dir)
        if named.startswith("~"):
            raise UsageError(f"run_dir={cfg.run_dir}: there is no user {named[1:].partition('/')[0]}; ./~ is a folder.")
        return _plan_named(cfg, Path(named))
    parent = ROOT / (cfg.experiment or str(cfg.task["name"]))
    if ROOT not in Path(os.path.normpath(parent)).parents:
        raise UsageError(f"experiment={cfg.experiment} is not a folder in {ROOT}; run_dir=PATH puts one run anywhere.")
    _check_writable(parent)
    if cfg.checkpoint in RESUME and parent.is_dir():
        runs = [folder for folder in parent.iterdir() if (folder / "config.yaml").is_file() and has_begun(folder)]
        for folder in sorted(runs, key=_last_written, reverse=True):
            try:
                stored = read_config(folder)
                if stored is not None:
                    _check_whole(stored, folder)
            except CheckpointError as error:  # it was not named by the user
                print(f"{error} That run is passed over.")
                continue
            if stored is not None and not changes(stored, cfg) and not lock.holder(folder):
                return Plan(folder, stored)
    if cfg.checkpoint == LATEST:
        raise CheckpointError(
            f"checkpoint=latest: no run in {parent} has these settings; checkpoint=auto would start one."
        )
    return Plan(parent / time.strftime(f"%Y%m%d-%H%M%S-seed{cfg.seed}"), None)


def changes(stored: dict[str, Any], cfg: RunConfig) -> dict[str, tuple[Any, Any]]:
    """What ``cfg`` wants to change and may not: key -> (stored, wanted). ``auto`` agrees with anything."""
    old = dict(leaves(stored))
    out = {}
    for key, value in leaves(cfg):
        free = any(key == name or key.startswith(name + ".") for name in FREE)
        if free or not is_read(key, cfg.algo, cfg.agent.learner):
            continue
        if value != AUTO and key in old and old[key] != value:
            out[key] = (old[key], value)
    return out


def _plan_named(cfg: RunConfig, folder: Path) -> Plan:
    _check_writable(folder)
    holder = lock.holder(folder)
    if holder:
        raise UsageError(f"{folder} is in use by {holder}; wait for it or choose another run_dir.")
    stored, begun = read_config(folder), has_begun(folder)
    if begun and stored is None:
        raise UsageError(
            f"{folder} holds checkpoints or metrics, but no config.yaml that tells of what run; choose another run_dir."
        )
    if not begun:  # a start that failed leaves a configuration of nothing
        stored = None
    if stored is None and cfg.checkpoint == LATEST:
        raise CheckpointError(f"checkpoint=latest: {folder} holds no run; checkpoint=auto would start one.")
    if stored is None:
        return Plan(folder, None)
    if cfg.checkpoint not in RESUME:
        raise UsageError(f"{folder} holds a run; add checkpoint=auto to continue it, or choose another run_dir.")
    _check_whole(stored, folder)
    changed = changes(stored, cfg)
    if changed:
        typed = _typed(changed)
        advice = f"Continue it with {typed}, or choose" if typed else "Choose"
        raise UsageError(
            f"{folder} was made with other settings: {listed(changed)}. {advice} another run_dir;"
            f" checkpoint={folder} there starts from what was learnt here, if task, algo and sizes agree."
        )
    return Plan(folder, stored)


def listed(changed: dict[str, tuple[Any, Any]]) -> str:
    """The first of ``changes``, as text."""
    first = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in list(changed.items())[:6])
    return first + (f" and {len(changed) - 6} more" if len(changed) > 6 else "")


def _typed(changed: dict[str, tuple[Any, Any]]) -> str:
    """The stored values as on a command line; '' for more than three, and for any but numbers and switches."""
    if len(changed) > 3 or not all(isinstance(old, int | float) for old, _ in changed.values()):
        return ""
    return " ".join(f"{key}={str(old).lower()}" for key, (old, _) in changed.items())


def _check_whole(stored: dict[str, Any], folder: Path) -> None:
    """Raise ``CheckpointError`` unless a run can be continued from what ``folder``'s config.yaml ``stored``."""
    check_expressible(stored, folder)
    if not isinstance(stored.get("num_envs"), int) or not dict(leaves(stored)).get("engine.name"):
        raise CheckpointError(f"{folder / 'config.yaml'} is not a run's whole configuration.")


def _last_written(folder: Path) -> tuple[float, str]:
    files = [folder / "config.yaml", folder / "metrics.jsonl"]
    return max(path.stat().st_mtime for path in files if path.exists()), folder.name


def _check_writable(folder: Path) -> None:
    """Raise unless ``folder`` could be created and written: its nearest existing ancestor decides."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UsageError(f"cannot use run folder {folder}: {place} is a file.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"cannot use run folder {folder}: no permission to write to {place.resolve()}.")
