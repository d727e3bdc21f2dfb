"""The YAML search path: the packaged cfg/ folder and, after it, the user's ``--config-dir`` or DIMA_CONFIG_DIR.

Only files found here may name Python code (``target: package.module:Class``). A run folder or a checkpoint
holds values and names, never code.
"""

import importlib
import os
import traceback
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from dima_isaac.errors import DimaError, UsageError, unknown
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
            UsageError: no such folder, or one with a file of the same name as a packaged one.
        """
        import dima_isaac.cfg

        folder = folder or os.environ.get(CONFIG_DIR)
        self.user = Path(os.path.expanduser(folder)).resolve() if folder else None
        if self.user is not None and not self.user.is_dir():
            raise UsageError(f"--config-dir (or {CONFIG_DIR}) {folder} is not a folder.")
        ours = list(map(Path, dima_isaac.cfg.__path__))
        self.folders = [*ours, *([self.user] if self.user else [])]
        for path in sorted(path for group in GROUPS if self.user for path in (self.user / group).glob("*.yaml")):
            if any((folder / path.parent.name / path.name).is_file() for folder in ours):
                raise UsageError(f"{path} has the name of one of ours, which would be read instead; give it another.")

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
            UsageError: not a choice, not readable as YAML, without a name or target, or with another's name.
        """
        import yaml

        self.check(group, name)
        path = next(path for folder in self.folders if (path := folder / group / f"{name}.yaml").is_file())
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not a text file in UTF-8.") from error
        except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
            raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
        if not isinstance(values, dict):
            raise UsageError(f"{path} must hold key: value lines.")
        needed = {"task": ("name", "target"), "engine": ("name",)}.get(group, ())
        for key in needed:
            if not isinstance(values.get(key), str):
                raise UsageError(f"{path} needs a line '{key}: {name if key == 'name' else 'package.module:Class'}'.")
        if needed and values["name"] != name:
            raise UsageError(f"{path} says 'name: {values['name']}'; a {group} is called by its file: 'name: {name}'.")
        return {key: value for key, value in values.items() if key != "defaults"}

    def settable(self, group: str, name: str) -> dict[str, Any]:
        """The keys of a task or engine that a user may set, with their types (``Any`` where it is not known).

        They are the keys that the file lists and the fields of the dataclass that its ``config`` names (in a
        torch-free module), which the file need not list.
        """
        values = self.values(group, name)
        listed = {k: type(v) if isinstance(v, (bool, int, float)) else Any for k, v in settings(values).items()}
        return {**listed, **field_types(_config_class(values))} if "config" in values else listed


def settings(values: dict[str, Any]) -> dict[str, Any]:
    """What a task's or engine's ``values`` set."""
    return {key: value for key, value in values.items() if key not in CODE_KEYS}


def code(values: dict[str, Any]) -> dict[str, Any]:
    """What a task's or engine's ``values`` say of its code."""
    return {key: value for key, value in values.items() if key in CODE_KEYS}


def described(values: dict[str, Any]) -> str:
    """The name of a task or engine, and what it runs if that is not code of this package."""
    own = values["target"].startswith("dima_isaac.")
    return str(values["name"]) + ("" if own else f"  (runs {values['target']})")


def complete(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` of a YAML file with the defaults of the dataclass that its ``config`` names, where it has one."""
    defaults = as_dict(_config_class(values)()) if "config" in values else {}
    return {**code(values), **defaults, **values}


def task_config(values: dict[str, Any]) -> Any:
    """The task's own dataclass with ``values``."""
    return from_dict(task_class(values).Config, settings(values), "task.")


def engine_config(values: dict[str, Any]) -> Any:
    """The engine's own dataclass with ``values``."""
    return from_dict(_config_class(values), settings(values), "engine.")


def task_class(values: dict[str, Any]) -> Any:
    """The subclass of ``Task`` that a task's ``values`` name.

    Raises:
        UsageError: it cannot be imported, or is none.
    """
    from dima_isaac.envs.task import Task  # needs torch, as what is imported does

    found = import_target(values["target"])
    if not (issubclass(found, Task) and is_dataclass(getattr(found, "Config", None))):
        raise UsageError(f"target '{values['target']}' is not a Task with a dataclass Config (docs/new_task.md).")
    return found


def _config_class(values: dict[str, Any]) -> Any:
    found = import_target(values["config"])
    if not is_dataclass(found):
        raise UsageError(f"config '{values['config']}' is not a dataclass.")
    return found


def import_target(target: str) -> type[Any]:
    """Import ``package.module:Class``.

    Raises:
        UsageError: malformed, no such module or class, or code of others that raises when it is imported.
    """
    module, _, name = str(target).partition(":")
    if not module or not name:
        raise UsageError(f"target '{target}' is not of the form package.module:Class.")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except DimaError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError):
            if error.name and (module == error.name or module.startswith(error.name + ".")):
                raise UsageError(f"target '{target}': there is no module {error.name}.") from error
            raise
        if module.startswith("dima_isaac."):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, SyntaxError) else f" ({place.filename}, line {place.lineno})"
        why = f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
        raise UsageError(f"target '{target}' cannot be imported: {why}.") from error
    if not isinstance(found, type):
        raise UsageError(f"target '{target}': {module} has no class {name}.")
    return found
