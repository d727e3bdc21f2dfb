"""Chains of Ants and of Swimmer's links (FACMAC): A times B segments for the partition AxB, B of them per agent."""

import re
import tempfile
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path

from dima_isaac.errors import UsageError
from dima_isaac.sim.scene import Scene
from dima_isaac.tasks.mamujoco.ant import Ant
from dima_isaac.tasks.mamujoco.config import MamujocoConfig
from dima_isaac.tasks.mamujoco.factorisation import Graph, upstream, upstream_graph
from dima_isaac.tasks.mamujoco.robot import Robot
from dima_isaac.tasks.mamujoco.runners import Swimmer


class ManySegment(Robot):
    """What both chains share: a file that upstream generates, and sizes that follow from the partition."""

    harl = None
    generator: str  # upstream's module with ``gen_asset``

    def __init__(self, cfg: MamujocoConfig) -> None:
        """See ``Robot``.

        Raises:
            UsageError: a partition that is not AxB, or one joint by joint.
        """
        conf = "a partition" if cfg.partition else cfg.agent_conf or self.partitions[0]
        match = re.fullmatch(r"(\d+)x(\d+)", conf)
        if match is None or int(match[1]) * int(match[2]) < 2:
            raise UsageError(f"{self.scenario} is shared out as AxB, A agents of B segments, not as '{conf}'.")
        self.segments = int(match[1]) * int(match[2])
        self._set_sizes(self.segments)
        super().__init__(cfg)
        # lives as long as the task: pictures compile the file again
        self._folder = tempfile.TemporaryDirectory(prefix="dima_isaac_")

    @abstractmethod
    def _set_sizes(self, segments: int) -> None:
        """Take the partition's number of segments (at least 2)."""

    def _graph(self, conf: str) -> Graph:
        return upstream_graph(self.scenario, conf)

    def scene(self) -> Scene:
        """The generated chain as the whole world."""
        path = Path(self._folder.name) / f"{self.scenario}_{self.segments}.xml"
        try:
            upstream(self.generator).gen_asset(n_segs=self.segments, asset_path=str(path))
        except ImportError as error:
            raise UsageError(f"{self.scenario} comes from a template, and {error}; pip install jinja2.") from error
        return replace(super().scene(), world=str(path))


class ManySegmentAnt(ManySegment, Ant):
    """Ants with two legs per segment, one behind the other. State: as Ant's, longer."""

    scenario, template, generator = "ManySegmentAnt", "Ant", "many_segment_ant"
    partitions = ("2x3",)

    def _set_sizes(self, segments: int) -> None:
        self.nq, self.nv, self.nu, self.nbody = 7 + 4 * segments, 6 + 4 * segments, 4 * segments, 1 + 7 * segments


class ManySegmentSwimmer(ManySegment, Swimmer):
    """A swimmer of many links. State: as Swimmer's, longer."""

    scenario, template, generator = "ManySegmentSwimmer", "Swimmer", "many_segment_swimmer"
    partitions = ("10x2",)

    def _set_sizes(self, segments: int) -> None:
        self.nq, self.nv, self.nu = 3 + segments, 3 + segments, segments
