"""The YAML search path: the packaged cfg/ folder and, after it, the user's ``--config-dir`` or DIMA_CONFIG_DIR.

Only files found here may name Python code (``target: package.module:Class``). A run folder or a checkpoint
holds values and names, never code.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from dima_isaac.errors import UsageError, unknown
from dima_isaac.schema import as_dict, field_types, from_dict

CONFIG_DIR = "DIMA_CONFIG_DIR"  # the variable that stands for --config-dir, in Python and for jobs on a cluster
GROUPS = ("task", "engine", "preset", "scale")
CODE_KEYS = {"name", "target", "config", "requires", "candidates"}
"""Keys of a task's or engine's YAML that describe it rather than set one of its values."""


class Catalog:
    """What can be chosen, and the values that each choice sets."""

    def __init__(self, folder: str | None = None) -> None:
        """Add the user's ``folder``, or what the environment names instead; it must exist.

        Raises:
            UsageError: no such folder.
        """
        import dima_isaac.cfg

        folder = folder or os.environ.get(CONFIG_DIR)
        self.user = Path(os.path.expanduser(folder)).resolve() if folder else None
        if self.user is not None and not self.user.is_dir():
            raise UsageError(f"--config-dir (or {CONFIG_DIR}) {folder} is not a folder.")
        self.folders = [*map(Path, dima_isaac.cfg.__path__), *([self.user] if self.user else [])]

    def names(self, group: str) -> list[str]:
        """Every choice of ``group``."""
        return sorted({path.stem for folder in self.folders for path in (folder / group).glob("*.yaml")})

    def check(self, group: str, name: str) -> None:
        """Raise ``UsageError`` with the nearest match unless ``name`` is a choice of ``group``."""
        if name not in self.names(group):
            raise unknown(group, name, self.names(group))

    def values(self, group: str, name: str) -> dict[str, Any]:
        """The content of one choice's YAML without hydra's defaults list.

        Raises:
            UsageError: not a choice, or not readable as YAML.
        """
        import yaml

        self.check(group, name)
        path = next(path for folder in self.folders if (path := folder / group / f"{name}.yaml").is_file())
        try:
            values = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
        if not isinstance(values, dict):
            raise UsageError(f"{path} must hold key: value lines.")
        return {key: value for key, value in values.items() if key != "defaults"}

    def settable(self, group: str, name: str) -> dict[str, Any]:
        """The keys of a task or engine that a user may set, with their types (``Any`` where it is not known).

        They are the keys that the file lists and the fields of the dataclass that its ``config`` names (in a
        torch-free module), which the file need not list.
        """
        values = self.values(group, name)
        listed = {k: type(v) if isinstance(v, (bool, int, float)) else Any for k, v in settings(values).items()}
        return {**listed, **field_types(import_target(values["config"]))} if "config" in values else listed


def settings(values: dict[str, Any]) -> dict[str, Any]:
    """What a task's or engine's ``values`` set."""
    return {key: value for key, value in values.items() if key not in CODE_KEYS}


def code(values: dict[str, Any]) -> dict[str, Any]:
    """What a task's or engine's ``values`` say of its code."""
    return {key: value for key, value in values.items() if key in CODE_KEYS}


def complete(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` of a YAML file with the defaults of the dataclass that its ``config`` names, where it has one."""
    defaults = as_dict(import_target(values["config"])()) if "config" in values else {}
    return {**code(values), **defaults, **values}


def task_config(values: dict[str, Any]) -> Any:
    """The task's own dataclass with ``values``."""
    return from_dict(import_target(values["target"]).Config, settings(values), "task.")


def engine_config(values: dict[str, Any]) -> Any:
    """The engine's own dataclass with ``values``."""
    return from_dict(import_target(values["config"]), settings(values), "engine.")


def import_target(target: str) -> Any:
    """Import ``package.module:Name``.

    Raises:
        UsageError: malformed, or there is no such module or name.
    """
    module, _, name = target.partition(":")
    if not module or not name:
        raise UsageError(f"target '{target}' is not of the form package.module:Class.")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise UsageError(f"target '{target}': there is no module {error.name}.") from error
    except AttributeError as error:
        raise UsageError(f"target '{target}': {module} has no {name}.") from error
    except RuntimeError as error:  # MuJoCo refuses a MUJOCO_GL that it does not know when it is imported
        raise UsageError(f"target '{target}' cannot be imported: {error}.") from error
