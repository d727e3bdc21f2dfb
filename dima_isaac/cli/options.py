"""What ``play``, ``evaluate``, ``plot`` and ``bench`` can be told, and the reading of their command lines.

Same grammar as ``train``: key=value. A tool has a few keys of its own; without a checkpoint it also takes every
key of a run (task, engine, preset, world_model.*, ...), which goes to the run's schema unread. Torch-free: what
was typed is checked before anything heavy is imported.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import math
import os
import re
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import Enum
from typing import Any, get_type_hints

from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError, unknown
from dima_isaac.run.catalog import CONFIG_DIR
from dima_isaac.schema import AUTO, Seed, check_range


class Scripted(Enum):
    """Policies that need no checkpoint."""

    trained = "trained"  # the checkpoint's
    zero = "zero"  # every action 0
    random = "random"  # N(0, 0.64^2), clipped to [-1, 1]


class World(Enum):
    """What is shown."""

    real = "real"  # the simulator
    dream = "dream"  # the simulator beside the world model's dream, same start and same actions


class Axis(Enum):
    """What learning curves are drawn over."""

    env_steps = "env_steps"
    wall_time = "wall_time"
    both = "both"


class Suite(Enum):
    """What is measured."""

    engine = "engine"  # environment steps/s beside bare physics
    imagine = "imagine"  # dreamt steps/s of two presets
    train = "train"  # environment steps/s of the whole loop, and where the time goes
    mamujoco = "mamujoco"  # beside gymnasium-robotics' own environments


class Viewer(Enum):
    """What shows a policy live."""

    window = "window"  # MuJoCo's own
    web = "web"  # a browser


@dataclass
class PlayConfig:
    """Watch a policy: a video, or a window where there is a display."""

    checkpoint: str = ""  # a run folder, a .pt file, or latest (the newest under runs/)
    task: str = ""  # without a checkpoint: which task
    agent: Scripted = Scripted.trained  # trained, zero, random
    world: World = World.real  # real; dream: the simulator beside the world model's dream
    headless: bool = True  # False: a viewer instead of a video
    viewer: Viewer = Viewer.window  # window (MuJoCo's, needs a display), web (a page on localhost, needs viser)
    port: int = 8080  # of the page
    num_envs: int = 4  # tiled in one picture
    episode: int = 1  # which start
    steps: int = 0  # control steps; 0: one episode
    width: int = 320  # of one tile
    height: int = 240
    fps: float = 0.0  # 0: real time
    out: str = ""  # the video; .mp4 needs imageio-ffmpeg, .gif nothing
    explore: bool = False  # draw actions instead of taking the policy's mode
    seed: int = 0
    engine: str = AUTO
    sim_device: str = AUTO
    rl_device: str = AUTO
    threads: int | str = AUTO


@dataclass
class EvaluateConfig:
    """Measure a policy over episodes that neither training nor its evaluations have seen."""

    checkpoint: str = ""  # a run folder, a .pt file, or latest (the newest under runs/)
    task: str = ""  # without a checkpoint: which task
    agent: Scripted = Scripted.trained  # trained, zero, random
    num_envs: int = 64
    episodes: int = 128
    explore: bool = False  # draw actions instead of taking the policy's mode
    baseline: bool = False  # zero and random actions on the same starts
    probe: bool = False  # open-loop error and action sensitivity of the world model
    seed: int = 0
    engine: str = AUTO
    sim_device: str = AUTO
    rl_device: str = AUTO
    threads: int | str = AUTO


@dataclass
class PlotConfig:
    """Draw runs: plot.py RUN [RUN ...], each a run folder or a folder of runs."""

    runs: list[str] = field(default_factory=list)
    x: Axis = Axis.both  # env_steps, wall_time, both
    out: str = ""  # a folder; the run's plots/, or plots/ beside several runs
    reference: str = ""  # lines in the return panel: name:value,name:value
    open_loop: bool = False  # the open-loop figure of `checkpoint`
    checkpoint: str = ""
    num_envs: int = 32  # open loop: environments
    seed: int = 0
    threads: int | str = AUTO


@dataclass
class BenchConfig:
    """Measure speed. The last line printed is one JSON object."""

    suite: Suite = Suite.engine  # engine, imagine, train, mamujoco
    task: str = ""
    num_envs: int | str = AUTO
    seconds: float = 20.0  # how long to measure, roughly
    env_steps: int = 0  # engine: at least so many environment steps, to count what went wrong in them
    trace: bool = False  # train on a GPU: trace one more round, for the share of time in which the GPU was busy
    repeats: int = 3  # imagine: rounds, at least
    batch: int | str = AUTO  # imagine: dreams; auto: 600, or fewer where that would take longer than `seconds`
    horizon: int = 15  # imagine: steps of each
    against: str = "paper"  # imagine: the preset compared with `preset`
    seed: int = 0
    engine: str = AUTO
    sim_device: str = AUTO
    rl_device: str = AUTO
    threads: int | str = AUTO


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
        if cfg.agent is Scripted.trained:
            raise UsageError(f"{tool} task={cfg.task} without a checkpoint needs agent=zero or agent=random.")
    if tool == "plot" and not asked.help:
        references(cfg.reference)
        if cfg.open_loop and not cfg.checkpoint:
            raise UsageError("open_loop=True needs checkpoint=RUN|FILE.")
        if not cfg.open_loop and not cfg.runs:
            raise UsageError("plot needs at least one run folder: plot.py RUN [RUN ...].")


def references(text: str) -> list[tuple[str, float]]:
    """``untrained:3.3,MAPPO on PhysX:3.6`` -> names and values.

    Raises:
        UsageError: a word that is not a name and a finite number.
    """
    out = []
    for word in filter(None, text.split(",")):
        name, _, value = word.rpartition(":")
        with contextlib.suppress(ValueError):
            if name.strip() and math.isfinite(float(value)):
                out.append((name.strip(), float(value)))
                continue
        raise UsageError(f"reference={text}: '{word}' is not of the form name:value, such as untrained:3.3.")
    return out


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
