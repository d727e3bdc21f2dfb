"""The words of a command line, checked against the schema before hydra or torch is imported.

One grammar for every command: ``key=value``. ``train`` takes the keys of a run; the other commands have options of
their own and, without a checkpoint, take the keys of a run as well. A wrong name, key or value costs a fraction of a
second and one sentence; what passes is composed by hydra and checked again.
"""

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any, get_origin

from dima_isaac.bench.config import BenchConfig
from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError
from dima_isaac.run import zoo
from dima_isaac.run.catalog import CONFIG_DIR, GROUPS, Catalog
from dima_isaac.run.renamed import DROPPED, advice
from dima_isaac.schema import AUTO, alternatives, convert, field_types, is_scalar, schema
from dima_isaac.tools.config import Agent, EvaluateConfig, ExportConfig, PlayConfig, PlotConfig, PolicyConfig

OPTIONS: dict[str, type | None] = {
    "train": None,
    "play": PlayConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "plot": PlotConfig,
    "bench": BenchConfig,
}
"""Command -> the dataclass of its own keys."""

_ALONE = ("plot", "export")  # those that read runs and change none of their keys

_FLAGS = {
    **dict.fromkeys(("-h", "--help"), "help"),
    **dict.fromkeys(("-m", "--multirun"), "multirun"),
    **dict.fromkeys(("-c", "--cfg"), "show_config"),
}
_FOREIGN_NAMES = {
    **dict.fromkeys(("max_iterations", "total_timesteps", "steps"), "max_env_steps (counted over all environments)"),
    **dict.fromkeys(("model_dir", "load_path"), "checkpoint"),
    **dict.fromkeys(("graphics_device_id", "force_render"), "headless"),
    **{f"wandb_{key}": f"wandb.{key}" for key in ("project", "entity", "group", "name")},
    "pipeline": "sim_device (cpu or cuda:0); engine.pipeline of engine=isaacgym",
    "device": "sim_device and rl_device",
    "multi_gpu": "gpus=all, or gpus=N for N of them (docs/cluster.md)",
    "resume": "checkpoint=auto",
    "logdir": "run_dir",
    "model": "world_model",
}
"""Key of another program -> the key here."""


@dataclass
class Args:
    """A parsed command line."""

    command: str
    options: Any = None  # the command's own, an instance of its class in ``OPTIONS``
    overrides: list[str] = field(default_factory=list)  # key=value words for hydra
    keys: dict[str, str] = field(default_factory=dict)  # those that they set, as typed
    changes: dict[str, str] = field(default_factory=dict)  # task.KEY and engine.KEY, as typed
    config_dir: str | None = field(default_factory=lambda: os.environ.get(CONFIG_DIR))
    help: bool = False
    multirun: bool = False
    show_config: bool = False  # print the composed configuration and stop


def parse(command: str, argv: Sequence[str]) -> Args:
    """Read the words behind one of ``OPTIONS``.

    Raises:
        UsageError: an unknown flag, choice or key, with the nearest match and the alternatives; a value of another
            type or out of range; options that do not fit each other.
    """
    args = Args(command)
    words = _read_flags(args, argv)
    if args.help:
        return args
    cls, catalog = OPTIONS[command], Catalog(args.config_dir)
    own = field_types(cls) if cls else {}
    options: dict[str, Any] = {}
    pairs = []
    for word in words:
        key, equals, text = word.partition("=")
        if word.startswith("~") and not word.startswith(("~hydra.", "~hydra/")):
            raise UsageError(f"'{word}' takes a setting away, and a run needs all; leave it out to have its default.")
        if (equals and key) or word.startswith("~"):
            pairs.append((key.lstrip("+~"), text, word))
        elif "runs" in own:
            options.setdefault("runs", []).append(word)
        else:
            raise UsageError(f"'{word}' is not of the form key=value, such as task=ShadowHandOver.")
    given = {name: text for name, text, _ in pairs}
    if cls and issubclass(cls, PolicyConfig) and not given.get("checkpoint"):
        trained = given.get("agent", Agent.trained.name) == Agent.trained.name
        if name := zoo.best(given.get("task", "")) if trained else "":
            given["checkpoint"] = zoo.PREFIX + name
            pairs.append(("checkpoint", given["checkpoint"], ""))
    fixed = command in _ALONE or bool(cls and given.get("checkpoint"))  # a checkpoint brings its run's configuration
    keys = {} if fixed else _run_keys(args, given, catalog)
    for name, text, word in pairs:
        hint, of_game = _hint(name, keys), command not in _ALONE and name.startswith(("task.", "engine."))
        if name == "runs" and name in own:
            raise UsageError(f"runs stand alone, without a key: plot.py {text.replace(',', ' ') or 'RUN'}")
        if name in own:
            options[name] = convert(name, text, own[name])
        if name.startswith(("hydra.", "hydra/")) and not fixed:
            args.overrides.append(word)
        elif hint is not None:
            args.overrides.append(_override(args, name, text, hint))
            args.keys[name] = text
        elif name not in own and not (fixed and of_game):
            raise _unknown_key(name, command, {**keys, **own}, catalog)
        if of_game:
            args.changes[name] = text
    if cls:
        args.options = cls(**options)
        args.options.validate()
    return args


def _read_flags(args: Args, argv: Sequence[str]) -> list[str]:
    """Set the flags of ``args`` and return the other words."""
    rest, words = [], iter(argv)
    for word in words:
        flag, _, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            args.config_dir = value or next(words, None)
            if not args.config_dir:
                raise UsageError("--config-dir needs a folder.")
        elif flag in _FLAGS:
            setattr(args, _FLAGS[flag], True)
            if _FLAGS[flag] != "help" and args.command != "train":
                raise UsageError(f"{flag} is for train only.")
        elif word.startswith("-"):
            value = value or next(words, "VALUE")
            value = "True" if value.startswith("-") or "=" in value else value
            raise UsageError(f"settings are written key=value, without dashes: {flag.lstrip('-')}={value}")
        elif not (args.show_config and word in ("job", "all")):  # hydra's --cfg takes one of these
            rest.append(word)
    return rest


def _run_keys(args: Args, given: dict[str, str], catalog: Catalog) -> dict[str, Any]:
    """Every key of a run with its type, those of the chosen tasks and engines included."""
    keys = {key: hint for key, hint in schema(RunConfig) if not is_dataclass(hint)} | dict.fromkeys(GROUPS, str)
    for group in GROUPS:
        text = given.get(group, AUTO if group == "engine" else "")
        choices = text.split(",") if args.multirun else [text]
        for choice in choices if group in given else ():
            if "," in choice:
                raise UsageError(f"{group}={choice} names several; -m makes a run of each.")
            catalog.values(group, choice.strip())  # known, and readable
        for choice in filter(None, choices if group in ("task", "engine") else ()):
            for name in catalog.values(group, choice.strip()).get("candidates", [choice.strip()]):
                keys |= {f"{group}.{key}": hint for key, hint in catalog.settable(group, name).items()}
    return keys


def _hint(name: str, keys: dict[str, Any]) -> Any:
    """The type of ``name``, ``Any`` below a dictionary, None if there is no such key."""
    if name in keys or "." not in name:
        return keys.get(name)
    parent = _hint(name.rpartition(".")[0], keys)
    return Any if parent is Any or get_origin(parent) is dict else None


def _override(args: Args, key: str, text: str, hint: Any) -> str:
    """``key=text`` as hydra should read it for a field of type ``hint``."""
    prefix = "++" if key.startswith(("task.", "engine.")) else ""  # their YAML need not list every field
    kind = alternatives(hint)[0]
    if key in GROUPS or (args.multirun and re.search(r"[,(]", text)):
        return f"{prefix}{key}={text}"
    if "," in text and is_scalar(kind):
        raise UsageError(f"{key}={text} names several values; -m makes a run of each.")
    value = convert(key, text, hint)
    if type(value) is int:
        text = str(value)  # 1e6
    elif kind is str and text and not text.startswith(("'", '"', "$")):
        # paths may hold '=', ',', '(' and spaces; hydra reads a backslash as itself but before a quote
        text = "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text) + "'"
    return f"{prefix}{key}={text}"


def _unknown_key(name: str, command: str, keys: dict[str, Any], catalog: Catalog) -> UsageError:
    """The error for a key that does not exist: its new name, or the nearest keys; and all keys beside it."""
    own = field_types(OPTIONS[command] or RunConfig)
    if name in _FOREIGN_NAMES:
        return UsageError(f"unknown key '{name}'; here it is {_FOREIGN_NAMES[name]}.")
    branch = name
    while branch and not any(key.startswith(f"{branch}.") for key in keys):
        branch = branch.rpartition(".")[0]
    depth = branch.count(".") + 2 if branch else 1
    below = dict.fromkeys(".".join(key.split(".")[:depth]) for key in keys if key.startswith(f"{branch}."))
    shown = f"Keys of {branch or command}: {', '.join(below or own)}."
    if advice(name):
        return UsageError(f"{advice(name)} {shown}" if name in DROPPED else advice(name))
    if name == branch:
        return UsageError(f"{name} is a group of keys. {shown}")
    if not branch and name.startswith("task.") and command not in _ALONE:
        return UsageError(f"{name} needs a task: task=NAME. Known: {', '.join(catalog.names('task'))}.")
    if not branch and name.partition(".")[0] in field_types(RunConfig) and command != "plot":
        return UsageError(f"{name} of a checkpoint's run cannot be changed. {shown}")
    leaf = name.rpartition(".")[2]
    near = sorted((key for key in keys if key.rpartition(".")[2] == leaf), key=lambda key: key.count("."))[:4]
    words = {key.rpartition(".")[2]: key for key in reversed(keys)} | {key: key for key in keys}
    near = near or [words[word] for word in difflib.get_close_matches(name, words, 1)]
    return UsageError(f"unknown key '{name}'" + (f"; did you mean {' or '.join(near)}? " if near else ". ") + shown)
