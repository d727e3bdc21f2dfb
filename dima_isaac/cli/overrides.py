"""What the user typed, checked against the schema before hydra or torch is imported.

An answer within half a second matters more than elegance here: names, keys and simple types are compared with
the dataclasses and the YAML file names; whatever passes goes to hydra, which has the last word.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from typing import Any

from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError, unknown
from dima_isaac.run.catalog import CONFIG_DIR, GROUPS, Catalog
from dima_isaac.schema import AUTO, alternatives, schema

_ELSEWHERE = {
    "max_iterations": "max_env_steps (this program counts environment steps)",
    "total_timesteps": "max_env_steps",
    "steps": "max_env_steps",
    "pipeline": "sim_device (cpu or cuda:0)",
    "device": "sim_device and rl_device",
    "graphics_device_id": "headless",
    "force_render": "headless",
    "model_dir": "checkpoint",
    "load_path": "checkpoint",
    "resume": "checkpoint=auto",
    "logdir": "run_dir",
    "wandb_project": "wandb.project",
    "wandb_entity": "wandb.entity",
    "wandb_group": "wandb.group",
    "wandb_name": "wandb.name",
    "model": "world_model",
}
"""What other programs of the field call it."""


@dataclass
class Command:
    """A command line, taken apart."""

    overrides: list[str] = field(default_factory=list)
    config_dir: str | None = field(default_factory=lambda: os.environ.get(CONFIG_DIR))
    multirun: bool = False
    show: bool = False  # --cfg: print the configuration and stop
    help: bool = False


def parse(argv: list[str]) -> Command:
    """Separate the few flags from the key=value words.

    Raises:
        UsageError: a flag that does not exist, or a word without '='.
    """
    command = Command()
    words = iter(argv)
    for word in words:
        flag, _, value = word.partition("=")
        if flag in ("-h", "--help"):
            command.help = True
        elif flag in ("-m", "--multirun"):
            command.multirun = True
        elif flag in ("--config-dir", "-cd"):
            command.config_dir = value or next(words, None)
            if not command.config_dir:
                raise UsageError("--config-dir needs a folder.")
        elif flag in ("--cfg", "-c"):
            command.show = True
        elif word.startswith("-"):
            plain = word.lstrip("-")
            if "=" not in plain:
                value = next(words, "VALUE")
                plain = f"{plain}={value if not value.startswith('-') else 'True'}"
            raise UsageError(f"settings are written key=value, without dashes: {plain}")
        elif "=" in word or word.startswith("~"):
            command.overrides.append(word)
        elif word in ("job", "all") and command.show:
            continue
        else:
            raise UsageError(f"'{word}' is not of the form key=value, such as task=ShadowHandOver.")
    return command


def check(command: Command, catalog: Catalog) -> list[str]:
    """Every override, normalised for hydra.

    Raises:
        UsageError: an unknown choice, key or value, with the nearest match and the alternatives.
    """
    chosen = {"task": "", "engine": AUTO}
    known = dict(schema(RunConfig))
    out = []
    for text in command.overrides:
        key, _, value = text.partition("=")
        name = key.lstrip("+~")
        if name.split(".")[0].startswith("hydra"):
            out.append(text)
        elif name in GROUPS:
            for choice in value.split(",") if command.multirun else [value]:
                catalog.check(name, choice.strip())
            chosen[name] = value
            out.append(f"{name}={value}")
        else:
            out.append(text)
    return [_check_key(text, known, chosen, catalog, command.multirun) for text in out]


def _check_key(text: str, known: dict[str, Any], chosen: dict[str, str], catalog: Catalog, multirun: bool) -> str:
    key, _, value = text.partition("=")
    name = key.lstrip("+~")
    group, _, rest = name.partition(".")
    if group.startswith("hydra") or name in GROUPS:
        return text
    if group in ("task", "engine") and rest:
        return _check_part(group, rest, value, chosen[group], catalog, multirun)
    if name not in known:
        for part in ("task", "engine"):
            if chosen[part] and group in _kinds(part, chosen[part], catalog):
                raise UsageError(f"unknown key '{name}'; did you mean {part}.{name}?")
        raise _unknown_key(name, known)
    if is_dataclass(known[name]):
        raise UsageError(f"{name} is a group of keys; set one of them: {', '.join(_below(name, known))}.")
    return f"{name}={_check_value(name, value, known[name], multirun)}"


def _check_part(group: str, rest: str, value: str, choice: str, catalog: Catalog, multirun: bool) -> str:
    """A key of the chosen task or engine: one that its YAML or its dataclass has."""
    if group == "task" and not choice:
        raise UsageError(f"task.{rest} needs a task: task=NAME. Known: {', '.join(catalog.names('task'))}.")
    kinds = _kinds(group, choice, catalog)
    if rest.partition(".")[0] not in kinds:
        raise unknown(f"key of {group} {choice}", rest, kinds)
    if kinds.get(rest) is not None:
        value = _check_value(f"{group}.{rest}", value, kinds[rest], multirun)
    return f"++{group}.{rest}={value}"  # ++: the file need not list what its dataclass has


def _kinds(group: str, choice: str, catalog: Catalog) -> dict[str, Any]:
    """What can be set of the chosen tasks or engines: key -> type."""
    kinds: dict[str, Any] = {}
    for one in catalog.names(group) if choice == AUTO else choice.split(","):
        if one != AUTO:
            kinds = {**catalog.settable(group, one), **kinds}
    return kinds


def _check_value(key: str, value: str, kind: Any, multirun: bool) -> str:
    """``value`` as hydra should read it for a field of type ``kind``."""
    if multirun and ("," in value or "(" in value):
        return value
    options = alternatives(kind)
    kind = options[0] if len(options) == 1 else kind
    if isinstance(kind, type) and issubclass(kind, Enum):
        if value not in kind.__members__:
            raise unknown(f"value of {key}:", value, kind.__members__)
        return value
    if kind is bool and value.lower() not in ("true", "false"):
        raise UsageError(f"{key}={value}: expected True or False.")
    if int in options and float not in options:
        whole = _as_int(value)
        if whole is not None:
            return whole
        if str not in options or value != AUTO:
            raise UsageError(f"{key}={value}: expected a whole number{' or auto' if str in options else ''}.")
    elif kind is float:
        try:
            float(value.replace("_", ""))
        except ValueError:
            raise UsageError(f"{key}={value}: expected a number.") from None
    elif kind is str and value and not value.startswith(("'", '"', "$")):
        # paths may hold '=', ',', '(' and spaces; hydra reads a backslash as itself but before a quote
        return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), value) + "'"
    return value


def _as_int(value: str) -> str | None:
    """'1e6' and '1_000_000' are whole numbers too."""
    if value.isdecimal():
        return value  # as it is: a float would lose digits
    try:
        number = float(value.replace("_", ""))
    except ValueError:
        return None
    return str(int(number)) if number.is_integer() else None


def _below(branch: str, known: dict[str, Any]) -> list[str]:
    """The keys directly under ``branch`` ('' for the root)."""
    start = f"{branch}." if branch else ""
    return [key for key in known if key.startswith(start) and "." not in key[len(start) :]]


def _unknown_key(name: str, known: dict[str, Any]) -> UsageError:
    if name in _ELSEWHERE:
        return UsageError(f"unknown key '{name}'; here it is {_ELSEWHERE[name]}.")
    leaf = name.rpartition(".")[2]
    near = sorted((key for key in known if key.rpartition(".")[2] == leaf), key=lambda key: key.count("."))[:4]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:
        leaves = {key.rpartition(".")[2]: key for key in known}
        near = [leaves[one] for one in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)]
    branch = name
    while branch and not is_dataclass(known.get(branch)):
        branch = branch.rpartition(".")[0]
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    where = f" of {branch}" if branch else ""
    return UsageError(f"unknown key '{name}'{hint} Keys{where}: {', '.join(_below(branch, known))}.")
