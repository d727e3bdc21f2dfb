"""The options of ``play``, ``evaluate`` and ``plot``. Torch-free."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from enum import Enum

from dima_isaac.errors import UsageError
from dima_isaac.schema import AUTO


class Agent(Enum):
    """Which policy acts."""

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


class Viewer(Enum):
    """What shows a policy live."""

    window = "window"  # MuJoCo's own
    web = "web"  # a browser


@dataclass
class PlayConfig:
    """Watch a policy: a video, or a window where there is a display."""

    checkpoint: str = ""  # a run folder, a .pt file, or latest (the newest under runs/)
    task: str = ""  # without a checkpoint: which task
    agent: Agent = Agent.trained  # trained, zero, random
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
    agent: Agent = Agent.trained  # trained, zero, random
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
    engine: str = AUTO
    sim_device: str = AUTO
    rl_device: str = AUTO
    threads: int | str = AUTO


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
