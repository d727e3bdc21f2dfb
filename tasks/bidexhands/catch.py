"""Eggs thrown from hand to hand: ShadowHandOver, whose bases are fixed, and the catch family, whose bases are free.

    reward  sum over eggs of exp(-0.2 ({distance_scale:g} d + theta))
    where   d, theta: distance and angle between egg and goal
    ends    an egg at or below {drop_height:g} m; Abreast and Over2Underarm: a base {fence:g} m or more off its place
    solved  every egg has d < {success_distance:g} m
    differs two eggs: published success adds their distances, so that one catch excuses the other's miss (every_egg);
            the published bonus for d <= 0 could never be paid and does not exist here, in either profile

The distance of a base from its place is measured at the palm link in Abreast and at the root in Over2Underarm, as
published.
"""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from dima_isaac.envs.task import Outcome
from dima_isaac.schema import NonNegative
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.rotations import angle_between, quat_div
from dima_isaac.sim.scene import Vec3
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import distance
from dima_isaac.tasks.bidexhands.hands.placement import HANDS, Hands
from dima_isaac.tasks.bidexhands.hands.props import egg, egg_goal
from dima_isaac.tasks.bidexhands.hands.two_hands import TwoHandTask

EGG_COLUMNS = 13 + 7 + 4  # of an egg in the state's tail: its root, its goal's pose, the rotation between them


class Throw(Enum):
    """From where to where."""

    over = "ShadowHandOver"
    underarm = "ShadowHandCatchUnderarm"
    two_underarm = "ShadowHandTwoCatchUnderarm"
    abreast = "ShadowHandCatchAbreast"
    over2underarm = "ShadowHandCatchOver2Underarm"


@dataclass
class CatchConfig(TwoHandConfig):
    """The published numbers of ShadowHandOver; the other throws are YAML."""

    throw: Throw = Throw.over
    reset_position_noise: NonNegative = 0.01
    reset_dof_noise: NonNegative = 0.2
    distance_scale: float = 50.0
    drop_height: float = 0.2
    fence: float = 0.1  # m that a base may leave its place, in the throws that limit it
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
    Throw.over: Layout(
        Hands(pos=((0.0, 0.0, 0.5), (0.0, -1.0, 0.5)), free=False),
        eggs=((0.0, -0.39, 0.54),),
        goals=((0.0, -0.64, 0.54),),
        camera=((0.54, -0.5, 0.82), (0.0, -0.5, 0.51)),
    ),
    Throw.underarm: Layout(_UNDERARM, eggs=((0.0, -0.39, 0.54),), goals=((0.0, -0.79, 0.54),)),
    Throw.two_underarm: Layout(
        _UNDERARM, eggs=((0.0, -0.39, 0.54), (0.0, -0.78, 0.54)), goals=((0.0, -0.79, 0.54), (0.0, -0.38, 0.54))
    ),
    Throw.abreast: Layout(
        Hands(
            pos=((0.0, -0.55, 0.5), (0.0, -1.15, 0.5)), rpy=((0.0, 0.3925, -1.57), (0.0, -0.3925, -1.57)), palms=True
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
_COLORS = ((0.9, 0.8, 0.6, 1.0), (0.55, 0.68, 0.85, 1.0))


class Catch(TwoHandTask):
    """Throw eggs and catch them: 2 agents x 20 (Over) or 26 actions, state 398 (Over), 422, or 446 with two eggs."""

    Config = CatchConfig
    cfg: CatchConfig

    def __init__(self, cfg: CatchConfig) -> None:
        layout = self._layout = LAYOUTS[cfg.throw]
        count = len(layout.eggs)
        self.name, self.hands, self.camera = cfg.throw.value, layout.hands, layout.camera
        self.props = (
            *(egg(f"egg{i}", pos, _COLORS[i]) for i, pos in enumerate(layout.eggs)),
            *(egg_goal(f"goal{i}", pos) for i, pos in enumerate(layout.goals)),
        )
        self.tail_size = count * EGG_COLUMNS
        self.objects = range(0, self.tail_size, EGG_COLUMNS)
        self._terms = [f"throw{i}" for i in range(count)] if count > 1 else ["throw"]
        super().__init__(cfg)

    def bind(self, engine: Engine) -> None:
        super().bind(engine)
        first, count = self._actor["egg0"], len(self._terms)
        self._eggs, self._goals = engine.root_state[:, first : first + 2 * count].split(count, 1)  # (E, eggs, 13)
        if self._layout.fence is not None:
            self._fence = torch.tensor(self._layout.fence, device=engine.device)  # (2, 3)

    def tail(self, engine: Engine) -> list[Tensor]:
        """For every egg its 13 numbers, its goal's pose, and the rotation from goal to egg."""
        rotation = quat_div(self._eggs[..., 3:7], self._goals[..., 3:7])
        return [torch.cat([self._eggs, self._goals[..., :7], rotation], -1).flatten(1)]

    def describe_tail(self, index: int) -> str:
        i, column = divmod(index, EGG_COLUMNS)
        numbers = ("x", "y", "z", "qx", "qy", "qz", "qw", "vx", "vy", "vz", "wx", "wy", "wz")
        names = [f"egg{i} {number}" for number in numbers] + [f"goal{i} {number}" for number in numbers[:7]]
        return [*names, *(f"egg{i} to goal {number}" for number in numbers[3:7])][column]

    def pose(self, engine: Engine, state: Tensor) -> None:
        self.pose_hands(engine, state)
        everyone = torch.ones(engine.num_envs, dtype=torch.bool, device=engine.device)
        eggs = state[:, -len(self._terms) * EGG_COLUMNS :].unflatten(1, (-1, EGG_COLUMNS))
        for i, shown in enumerate(eggs.unbind(1)):
            for name, pose in ((f"egg{i}", shown[:, :7]), (f"goal{i}", shown[:, 13:20])):
                quat = torch.nn.functional.normalize(pose[:, 3:], dim=1)
                root = torch.cat([pose[:, :3], quat, torch.zeros_like(state[:, :6])], 1)
                engine.set_root_state(everyone, self._actor[name], root)

    def compute_reward(self, engine: Engine) -> Outcome:
        cfg = self.cfg
        gap = distance(self._eggs[..., :3], self._goals[..., :3])  # (E, eggs)
        theta = angle_between(self._eggs[..., 3:7], self._goals[..., 3:7])
        reward = torch.add(theta, gap, alpha=cfg.distance_scale).mul_(-0.2).exp_()
        terminal = (self._eggs[..., 2] <= cfg.drop_height).any(1)
        if self._layout.fence is not None:
            places = self._palm_frames if self.hands.palms else engine.root_state[:, : len(HANDS)]
            terminal |= (distance(places[..., :3], self._fence) >= cfg.fence).any(1)
        if cfg.repaired(cfg.every_egg):
            success = (gap < cfg.success_distance).all(1)
        else:
            success = gap.sum(1) < len(self._terms) * cfg.success_distance
        terms = dict(zip(self._terms, reward.unbind(1), strict=True))
        return Outcome(reward.sum(1), terminal, success, terms)
