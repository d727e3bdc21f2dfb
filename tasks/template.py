"""A task to copy: two hands lift a cube off a table. docs/new_task.md goes through it step by step.

reward  1 - F_R - F_L + {lift_scale:g} h
where   F: the summed distances of a hand's five fingertips to its side of the cube; h: the cube's height above
        its start
ends    F_R or F_L >= {far:g} m
solved  h > {success_height:g} m
"""

from dataclasses import dataclass

from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import HandleTask, both, sum_of
from dima_isaac.tasks.bidexhands.hands.placement import palms_facing
from dima_isaac.tasks.bidexhands.hands.props import cube, table

START = 0.625  # height of the cube's centre at rest, m


@dataclass
class TemplateConfig(TwoHandConfig):
    """The numbers of this task; cfg/task/template.yaml lists them, and the command line sets them (task.far=2)."""

    far: float = 2.0
    lift_scale: float = 5.0
    success_height: float = 0.1


class Template(HandleTask):
    """Lift a cube: 2 agents x 26 actions, state 417."""

    Config = TemplateConfig
    cfg: TemplateConfig
    # the scene: hands, then objects (the first one is observed) and what they stand on
    hands = palms_facing(0.7, x=0.45)
    props = (cube("cube", (0.0, 0.0, START), (0.9, 0.55, 0.2, 1.0)), table((0.5, 1.0, 0.6)))
    # places that hands reach for, in the axes of their link: the right hand's, then the left one's
    places = (("cube", (0.0, 0.025, 0.0)), ("cube", (0.0, -0.025, 0.0)))

    def compute_reward(self, engine: Engine) -> Outcome:
        """Reward as named terms (E,), when the episode ends, and when the task is solved."""
        reach = self.reach(self.points())  # (E, 2)
        height = self.root("cube")[:, 2] - START
        terms = {**both("reach", 0.5 - reach), "lift": self.cfg.lift_scale * height}
        return sum_of(terms, (reach >= self.cfg.far).any(1), height > self.cfg.success_height)
