"""The catch family: eggs thrown from hand to hand; both bases are free.

    reward  sum over eggs of exp(-0.2 ({distance_scale:g} d + theta))
    where   d, theta: distance and angle between egg and goal
    ends    an egg at or below {drop_height:g} m; Abreast and Over2Underarm: a base {fence:g} m or more off its place
    solved  every egg has d < {success_distance:g} m
    differs two eggs: published success adds their distances, so that one catch excuses the other's miss (every_egg);
            the published bonus for d <= 0 could never be paid and does not exist here, in either profile

The fence is measured at the palm link in Abreast and at the root in Over2Underarm, as published.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.rotations import angle_between, quat_div
from dima_isaac.sim.scene import Vec3
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import distance, sum_of
from dima_isaac.tasks.bidexhands.hands.placement import HANDS, Hands
from dima_isaac.tasks.bidexhands.hands.props import egg, egg_goal
from dima_isaac.tasks.bidexhands.hands.two_hands import TwoHandTask


class Throw(Enum):
    """From where to where."""

    underarm = "ShadowHandCatchUnderarm"
    two_underarm = "ShadowHandTwoCatchUnderarm"
    abreast = "ShadowHandCatchAbreast"
    over2underarm = "ShadowHandCatchOver2Underarm"


@dataclass
class CatchConfig(TwoHandConfig):
    """The published numbers of CatchUnderarm; the variants are YAML."""

    throw: Throw = Throw.underarm
    reset_position_noise: float = 0.01
    reset_dof_noise: float = 0.2
    transition_scale: float = 0.05
    orientation_scale: float = 0.5
    distance_scale: float = 50.0
    drop_height: float = 0.1
    fence: float = 0.1  # m that a base may leave its place in the variants that have a fence
    success_distance: float = 0.03
    every_egg: bool | None = None  # published: the distances are added, so one egg's catch may excuse the other's miss


@dataclass(frozen=True)
class Layout:
    """Where everything starts."""

    hands: Hands
    eggs: tuple[Vec3, ...]
    goals: tuple[Vec3, ...]
    fence: tuple[Vec3, Vec3] | None = None  # where the bases' measured points should stay
    camera: tuple[Vec3, Vec3] = ((1.05, -0.575, 1.1), (0.0, -0.575, 0.48))


_UNDERARM = Hands(pos=((0.0, 0.0, 0.5), (0.0, -1.15, 0.5)))
LAYOUTS = {
    Throw.underarm: Layout(_UNDERARM, eggs=((0.0, -0.39, 0.54),), goals=((0.0, -0.79, 0.54),)),
    Throw.two_underarm: Layout(
        _UNDERARM,
        eggs=((0.0, -0.39, 0.54), (0.0, -0.78, 0.54)),
        goals=((0.0, -0.79, 0.54), (0.0, -0.38, 0.54)),
    ),
    Throw.abreast: Layout(
        Hands(
            pos=((0.0, -0.55, 0.5), (0.0, -1.15, 0.5)),
            rpy=((0.0, 0.3925, -1.57), (0.0, -0.3925, -1.57)),
            palms=True,
        ),
        eggs=((-0.39, -0.55, 0.54),),
        goals=((-0.39, -1.15, 0.54),),
        fence=((-0.3, -0.55, 0.5), (-0.3, -1.15, 0.5)),
        camera=((-1.1, -0.85, 1.15), (-0.25, -0.85, 0.5)),
    ),
    Throw.over2underarm: Layout(
        Hands(pos=((0.0, 0.0, 0.5), (0.0, -0.8, 0.5)), rpy=((1.67, 3.14, 0.0), (0.0, 0.0, 3.14159))),
        eggs=((0.0, 0.05, 1.0),),
        goals=((0.0, -0.4, 0.55),),
        fence=((0.0, 0.0, 0.5), (0.0, -0.8, 0.5)),
        camera=((1.15, -0.5, 1.35), (0.0, -0.3, 0.68)),
    ),
}
_SHELLS = ((0.9, 0.8, 0.6, 1.0), (0.55, 0.68, 0.85, 1.0))


class Catch(TwoHandTask):
    """Throw eggs and catch them: 2 agents x 26 actions, state 422, or 446 with two eggs."""

    Config = CatchConfig

    def __init__(self, cfg: CatchConfig) -> None:
        layout = self._layout = LAYOUTS[cfg.throw]
        self._count = len(layout.eggs)
        eggs = [egg(f"egg{i}", pos, _SHELLS[i]) for i, pos in enumerate(layout.eggs)]
        goals = [egg_goal(f"goal{i}", pos) for i, pos in enumerate(layout.goals)]
        tail = 13 + 11
        things = range(0, self._count * tail, tail)
        props = [*eggs, *goals]
        super().__init__(cfg.throw.value, cfg, layout.hands, props, self._count * tail, things, camera=layout.camera)
        self.cfg: CatchConfig = cfg

    def bind(self, engine: Engine) -> None:
        """Keep the fence's places, too."""
        super().bind(engine)
        if self._layout.fence is not None:
            self._fence = torch.tensor(self._layout.fence, device=engine.device)  # (2, 3)

    def tail(self, engine: Engine) -> list[Tensor]:
        """For every egg its 13 numbers; its goal's pose, and the turn from goal to egg."""
        parts = []
        for i in range(self._count):
            shell, goal = self.root(f"egg{i}"), self.root(f"goal{i}")
            parts += [shell, goal[:, :7], quat_div(shell[:, 3:7], goal[:, 3:7])]
        return parts

    def compute_reward(self, engine: Engine) -> Outcome:
        """Reward, drops, fences and catches."""
        terms, gaps = {}, []
        terminal = self._strayed(engine)
        for i in range(self._count):
            shell, goal = self.root(f"egg{i}"), self.root(f"goal{i}")
            gap, theta = distance(shell[:, :3], goal[:, :3]), angle_between(shell[:, 3:7], goal[:, 3:7])
            terms[f"catch{i}"] = torch.add(theta, gap, alpha=self.cfg.distance_scale).mul_(-0.2).exp_()
            terminal = terminal | (shell[:, 2] <= self.cfg.drop_height)
            gaps.append(gap)
        gap = torch.stack(gaps)
        if self.cfg.repaired(self.cfg.every_egg):
            success = (gap < self.cfg.success_distance).all(0)
        else:
            success = gap.sum(0) < self._count * self.cfg.success_distance
        return sum_of(terms, terminal, success)

    def _strayed(self, engine: Engine) -> Tensor:
        """(E,) whether a base left its fence."""
        if self._layout.fence is None:
            return torch.zeros(engine.num_envs, dtype=torch.bool, device=engine.device)
        places = self._palm_frames if self.hands.palms else engine.root_state[:, : len(HANDS)]
        return (distance(places[..., :3], self._fence) >= self.cfg.fence).any(1)
