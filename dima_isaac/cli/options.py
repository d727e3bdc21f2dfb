"""What ``play``, ``evaluate``, ``plot`` and ``bench`` can be told, and the reading of their command lines.

Same grammar as ``train``: key=value. A tool has a few keys of its own; without a checkpoint it also takes every
key of a run (task, engine, preset, world_model.*, ...), which goes to the run's schema unread. Torch-free: what
was typed is checked before anything heavy is imported.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import Enum
from typing import Any, get_type_hints

from dima_isaac.bench.config import BenchConfig
from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError, unknown
from dima_isaac.run.catalog import CONFIG_DIR
from dima_isaac.schema import AUTO, Seed, check_range
from dima_isaac.tools.config import Agent, EvaluateConfig, PlayConfig, PlotConfig, references

Tool = PlayConfig | EvaluateConfig | PlotConfig | BenchConfig

TOOLS: dict[str, tuple[type[Any], str]] = {
    "play": (PlayConfig, "dima_isaac.tools.play"),
    "evaluate": (EvaluateConfig, "dima_isaac.tools.evaluate"),
    "plot": (PlotConfig, "dima_isaac.tools.plot"),
    "bench": (BenchConfig, "dima_isaac.bench.main"),
}
"""Command -> its options and the module whose ``main`` runs it."""

_RUN_KEYS = tuple(item.name for item in fields(RunConfig))
_OWN = ("agent", "checkpoint", "runs")  # words that mean something else here than in a run's configuration
_AT_LEAST = {
    **dict.fromkeys(("num_envs", "episodes", "repeats", "batch", "horizon", "threads"), 1),
    **dict.fromkeys(("width", "height"), 16),
    **dict.fromkeys(("steps", "seed", "fps", "seconds", "episode", "env_steps"), 0),
}


@dataclass
class Asked:
    """A command line, taken apart."""

    cfg: Any  # the tool's own options
    overrides: list[str]  # key=value words for the run's configuration
    config_dir: str | None = field(default_factory=lambda: os.environ.get(CONFIG_DIR))
    help: bool = False

    @property
    def changes(self) -> dict[str, str]:
        """What a checkpoint's configuration is to be changed in: task.* and engine.* words."""
        return dict(text.split("=", 1) for text in self.overrides if text.startswith(("task.", "engine.")))


def parse(tool: str, argv: list[str]) -> Asked:
    """Read ``argv`` for one of ``TOOLS``.

    Raises:
        UsageError: an unknown key with its nearest match, a value of another type, or out of range.
    """
    cls = TOOLS[tool][0]
    kinds = get_type_hints(cls)
    values: dict[str, Any] = {}
    asked = Asked(cls(), [])
    words = iter(argv)
    for word in words:
        flag, _, value = word.partition("=")
        if flag in ("-h", "--help"):
            asked.help = True
        elif flag in ("--config-dir", "-cd"):
            asked.config_dir = value or next(words, None)
            if not asked.config_dir:
                raise UsageError("--config-dir needs a folder.")
        elif word.startswith("-"):
            raise UsageError(f"settings are written key=value, without dashes: {word.lstrip('-')}")
        elif "=" not in word:
            if "runs" not in kinds:
                raise UsageError(f"'{word}' is not of the form key=value, such as checkpoint=latest.")
            values.setdefault("runs", []).append(word)
        elif flag == "runs" and flag in kinds:
            raise UsageError(f"runs stand alone, without a key: {tool}.py {value.replace(',', ' ') or 'RUN'}")
        else:
            if flag in kinds:
                values[flag] = _value(flag, value, kinds[flag])
            if (flag in _RUN_KEYS and flag not in _OWN) or "." in flag:
                asked.overrides.append(word)
            elif flag not in kinds:
                raise _unknown(tool, flag, kinds)
    asked.cfg = replace(asked.cfg, **values)
    _check(tool, asked, values)
    return asked


def _check(tool: str, asked: Asked, given: dict[str, Any]) -> None:
    cfg = asked.cfg
    for key, least in _AT_LEAST.items():
        value = getattr(cfg, key, least)
        if not isinstance(value, str) and value < least:
            raise UsageError(f"{key}={value} is too small; the least is {least}.")
    check_range("seed", cfg.seed, Seed)
    foreign = [
        key for key in (text.partition("=")[0] for text in asked.overrides) if key not in get_type_hints(type(cfg))
    ]
    if getattr(cfg, "checkpoint", "") or tool == "plot":
        for key in foreign:
            if tool == "plot" or key.partition(".")[0] not in ("task", "engine") or "." not in key:
                raise _unknown(tool, key, get_type_hints(type(cfg)))
    elif not asked.help and tool in ("play", "evaluate"):
        if not cfg.task:
            raise UsageError(f"{tool} needs checkpoint=RUN|FILE|latest, or task=NAME agent=zero|random.")
        if cfg.agent is Agent.trained:
            raise UsageError(f"{tool} task={cfg.task} without a checkpoint needs agent=zero or agent=random.")
    if tool == "plot" and not asked.help:
        references(cfg.reference)
        if cfg.open_loop and not cfg.checkpoint:
            raise UsageError("open_loop=True needs checkpoint=RUN|FILE.")
        if not cfg.open_loop and not cfg.runs:
            raise UsageError("plot needs at least one run folder: plot.py RUN [RUN ...].")


def _value(key: str, text: str, kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, Enum):
        if text not in kind.__members__:
            raise unknown(f"value of {key}:", text, kind.__members__)
        return kind[text]
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"{key}={text}: expected True or False.")
        return text.lower() == "true"
    if kind is str or (kind == int | str and text == AUTO):
        return text
    try:
        number = float(text.replace("_", ""))
        whole = int(number)
    except (ValueError, OverflowError):
        raise UsageError(f"{key}={text}: expected a number.") from None
    if kind is float:
        return number
    if number != whole:
        raise UsageError(f"{key}={text}: expected a whole number.")
    return whole


def _unknown(tool: str, key: str, kinds: dict[str, Any]) -> UsageError:
    """The nearest of the tool's own keys and the run's; a run's key comes here where its checkpoint has fixed it."""
    own = sorted(set(kinds) - {"runs"})
    if key.partition(".")[0] in _RUN_KEYS and tool != "plot":
        return UsageError(f"{key} of a checkpoint's run cannot be changed. Keys of {tool}: {', '.join(own)}.")
    near = difflib.get_close_matches(key, own if tool == "plot" else [*own, *_RUN_KEYS], n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else "."
    return UsageError(f"unknown key '{key}' of {tool}{hint} Keys: {', '.join(own)}.")


def usage(tool: str) -> str:
    """What can be typed, from the dataclass itself."""
    cls = TOOLS[tool][0]
    head = "RUN [RUN ...] [key=value ...]" if "runs" in get_type_hints(cls) else "key=value ..."
    lines = [f"usage: python scripts/{tool}.py {head}", "", str(inspect.getdoc(cls)), "", *described(cls, 24)]
    if tool == "bench":
        lines += ["", "also every key of scripts/train.py"]
    elif tool != "plot":
        lines += ["", "without a checkpoint also every key of scripts/train.py; with one also task.KEY and engine.KEY"]
    return "\n".join(lines)


def described(cls: type[Any], width: int) -> list[str]:
    """``key=default  comment`` for every field of a dataclass, as the user would type it; '...' for a group of keys."""
    comments = dict(re.findall(r"^    (\w+): [^#\n]+?  # (.*)$", inspect.getsource(cls), re.MULTILINE))
    lines = []
    for item in fields(cls):
        if item.name != "runs":  # these are words, not keys
            shown = "..." if item.default is MISSING else _typed(item.default)
            lines.append(f"  {item.name + '=' + shown:<{width}}{comments.get(item.name, '')}".rstrip())
    return lines


def _typed(value: Any) -> str:
    """``value`` as it is written behind a key."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, int) and value >= 100_000:
        return f"{value:_}"
    return str(value) or "''"
