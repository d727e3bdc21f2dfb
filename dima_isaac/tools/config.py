"""The options of ``play``, ``evaluate``, ``export`` and ``plot``. Torch-free."""

import contextlib
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

from dima_isaac.errors import UsageError
from dima_isaac.run import zoo
from dima_isaac.schema import AUTO, Count, CountOrZero, Few, NonNegative, Range, Seed, Size

Pixels = Annotated[int, Range(16, 8192)]


class Agent(Enum):
    """Which policy acts."""

    trained = "trained"  # the checkpoint's
    zero = "zero"  # every action 0
    random = "random"  # N(0, 0.64^2), clipped to [-1, 1]


class World(Enum):
    """What is shown."""

    real = "real"  # the simulator
    dream = "dream"  # the simulator beside the world model's dream, same start and same actions


class Viewer(Enum):
    """What shows a policy live."""

    window = "window"  # MuJoCo's own
    web = "web"  # a browser


@dataclass
class ToolConfig:
    """What all of them take."""

    checkpoint: str = ""  # a run folder, a .pt file, zoo:NAME, or latest (the newest under runs/)
    seed: Seed = 0
    engine: str = AUTO
    sim_device: str = AUTO
    rl_device: str = AUTO
    threads: Few | str = AUTO


@dataclass
class PolicyConfig(ToolConfig):
    """Which policy acts in which task."""

    task: str = ""  # without a checkpoint: which task; trained is then the zoo's best policy for it
    agent: Agent = Agent.trained  # trained, zero, random
    explore: bool = False  # draw actions instead of taking the policy's mode

    def validate(self) -> None:
        """Raise ``UsageError`` unless there is a policy."""
        if self.checkpoint:
            return
        if not self.task:
            raise UsageError(
                "checkpoint=RUN|FILE|zoo:NAME|latest is missing, or task=NAME for the zoo's policy,"
                " or task=NAME agent=zero|random."
            )
        if self.agent is Agent.trained:
            raise UsageError(
                f"task={self.task} without a checkpoint needs agent=zero or agent=random: the zoo has no policy for it,"
                f" only {', '.join(zoo.names())}."
            )


@dataclass
class PlayConfig(PolicyConfig):
    """Watch a policy: a video, or a window where there is a display."""

    world: World = World.real  # real; dream: the simulator beside the world model's dream
    headless: bool = True  # False: a viewer instead of a video
    viewer: Viewer = Viewer.window  # window (MuJoCo's, needs a display), web (a page on localhost, needs viser)
    port: Annotated[int, Range(1, 65_535)] = 8080  # of the page
    num_envs: Size = 4  # tiled in one picture
    episode: CountOrZero = 1  # which start
    steps: CountOrZero = 0  # control steps; 0: one episode
    width: Pixels = 320  # of one tile
    height: Pixels = 240
    fps: NonNegative = 0.0  # 0: real time
    out: str = ""  # the video; .mp4 needs imageio-ffmpeg, .gif and .webp nothing

    def validate(self) -> None:
        super().validate()
        if self.world is World.dream and not self.checkpoint:
            raise UsageError("world=dream needs checkpoint=RUN|FILE: it shows a world model's dream.")


@dataclass
class EvaluateConfig(PolicyConfig):
    """Measure a policy over episodes that neither training nor its evaluations have seen."""

    num_envs: Size = 64
    episodes: Count = 128
    baseline: bool = False  # zero and random actions on the same starts
    probe: bool = False  # of the world model: open-loop error, action sensitivity, and what a push comes to

    def validate(self) -> None:
        super().validate()
        if self.probe and not self.checkpoint:
            raise UsageError("probe=True needs checkpoint=RUN|FILE: it measures a world model.")


@dataclass
class ExportConfig(ToolConfig):
    """Write a run's policy as a folder: ONNX, TorchScript, weights, curve, and a card with what it is worth."""

    num_envs: Size = 64
    episodes: Count = 128  # fresh ones, for the card
    out: str = ""  # the folder; policy/ in the run's folder
    commit: str = ""  # the code that trained it, for the card; what the run has noted

    def validate(self) -> None:
        """Raise ``UsageError`` unless there is something to export."""
        if not self.checkpoint:
            raise UsageError("checkpoint=RUN|FILE|latest is missing.")


@dataclass
class PlotConfig(ToolConfig):
    """Draw runs: plot.py RUN [RUN ...], each a run folder or a folder of runs, up to runs/; a figure per task."""

    runs: list[str] = field(default_factory=list)
    out: str = ""  # a folder; the run's plots/, or plots/ beside several runs
    reference: str = ""  # lines in the return panel, named in the legend: name:value,name:value
    open_loop: bool = False  # the open-loop figure of `checkpoint`
    num_envs: Size = 32  # open loop: environments

    def validate(self) -> None:
        """Raise ``UsageError`` unless there is something to draw."""
        references(self.reference)
        if self.open_loop and not self.checkpoint:
            raise UsageError("open_loop=True needs checkpoint=RUN|FILE.")
        if not self.open_loop and not self.runs:
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
