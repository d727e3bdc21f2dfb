"""ShadowHandReOrientation: each hand turns a cube in its palm to a common goal orientation. Both bases are fixed.

    reward  {distance_scale:g} (d_1 + d_2) + 1/(theta_1 + {rotation_eps:g}) + 1/(theta_2 + {rotation_eps:g}) - 0.0002
            |a|^2 + {goal_bonus:g} g
    where   d, theta: distance and angle of a cube to its goal; a: all actions; g: 1 when a goal is reached
    ends    a cube at or below {drop_height:g} m
    solved  a goal was reached: theta < {success_angle:g} rad for either cube; both goals then take a new orientation
    differs in the published code the second cube's test overwrites the first one's, so only that one counts
            (either_cube); published success counts the goals of an episode, here it is whether there was one

An episode's goal orientations are drawn at its start; after GOALS of them they repeat.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dima_isaac.envs.noise import Noise
from dima_isaac.envs.task import Outcome
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.rotations import angle_between, quat_div
from dima_isaac.sim.scene import Actor, Mjcf, Vec3
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.handles import distance, sum_of
from dima_isaac.tasks.bidexhands.hands.placement import Hands
from dima_isaac.tasks.bidexhands.hands.props import ASSETS
from dima_isaac.tasks.bidexhands.hands.starts import Prop, spin
from dima_isaac.tasks.bidexhands.hands.two_hands import TwoHandTask

GOALS = 8
FRESH = -1  # goals reached until the first control step: a goal that the start happens to meet is paid once first
STARTS: tuple[Vec3, Vec3] = ((0.0, -0.39, 0.6), (0.0, -0.76, 0.6))
PLACES: tuple[Vec3, Vec3] = ((0.0, -0.39, 0.56), (0.0, -0.76, 0.56))  # of the goals
BLOCK, BLOCK_GOAL = (Mjcf(path=str(ASSETS / f"{name}.xml")) for name in ("block", "block_goal"))


@dataclass
class ShadowHandReOrientationConfig(TwoHandConfig):
    distance_scale: float = -10.0
    rotation_eps: float = 0.1
    action_scale: float = -0.0002
    goal_bonus: float = 500.0
    drop_height: float = 0.2
    success_angle: float = 0.1
    either_cube: bool | None = None


class ShadowHandReOrientation(TwoHandTask):
    """Turn two cubes: 2 agents x 20 actions, state 422."""

    Config = ShadowHandReOrientationConfig
    cfg: ShadowHandReOrientationConfig
    hands = Hands(pos=((0.0, 0.0, 0.5), (0.0, -1.15, 0.5)), free=False)
    props = (
        *(Prop(Actor(f"cube{i}", BLOCK, pos), jitter="object", spin="object") for i, pos in enumerate(STARTS)),
        *(Prop(Actor(f"goal{i}", BLOCK_GOAL, pos, marker=True), spin="goal") for i, pos in enumerate(PLACES)),
    )
    tail_size = 2 * (13 + 11)
    objects = (0, 24)
    camera = ((1.05, -0.575, 1.1), (0.0, -0.575, 0.5))

    def bind(self, engine: Engine) -> None:
        super().bind(engine)
        first = self._actor["cube0"]
        self._cubes, self._markers = engine.root_state[:, first : first + 4].split(2, 1)  # (E, 2, 13)
        self._goals = torch.zeros(engine.num_envs, GOALS, 4, device=engine.device)
        self._reached = torch.zeros(engine.num_envs, dtype=torch.int64, device=engine.device)

    def reset(self, engine: Engine, mask: Tensor, noise: Noise) -> None:
        super().reset(engine, mask, noise)
        drawn = spin(noise.uniform(2 * GOALS).unflatten(1, (GOALS, 2)))
        self._goals = torch.where(mask[:, None, None], drawn, self._goals)
        self._reached = self._reached.masked_fill(mask, FRESH)

    def act(self, engine: Engine, action: Tensor) -> None:
        """Give both goals their next orientation where one was reached."""
        hit = self._hit(self._angles()) & (self._reached > FRESH)
        quat = self._goals.gather(1, (self._reached % GOALS).view(-1, 1, 1).expand(-1, 1, 4)).squeeze(1)
        for i, goal in enumerate(self._markers.unbind(1)):
            engine.set_root_state(hit, self._actor[f"goal{i}"], torch.cat([goal[:, :3], quat, goal[:, 7:]], 1))
        self._reached = (self._reached + hit).clamp_min(0)
        super().act(engine, action)

    def tail(self, engine: Engine) -> list[Tensor]:
        """For each cube its 13 numbers, its goal's pose, and the rotation from goal to cube."""
        rotation = quat_div(self._cubes[..., 3:7], self._markers[..., 3:7])
        return [torch.cat([self._cubes, self._markers[..., :7], rotation], -1).flatten(1)]

    def compute_reward(self, engine: Engine) -> Outcome:
        cfg = self.cfg
        gap = distance(self._cubes[..., :3], self._markers[..., :3])  # (E, 2)
        theta = self._angles()
        hit = self._hit(theta)
        terms = {
            "distance": cfg.distance_scale * gap.sum(1),
            "rotation": (1.0 / (theta + cfg.rotation_eps)).sum(1),
            "action": cfg.action_scale * self._last_action.square().sum((1, 2)),
            "goal": cfg.goal_bonus * hit,
        }
        return sum_of(terms, (self._cubes[..., 2] <= cfg.drop_height).any(1), hit)

    def _angles(self) -> Tensor:
        """(E, 2) angle of each cube to its goal."""
        return angle_between(self._cubes[..., 3:7], self._markers[..., 3:7])

    def _hit(self, theta: Tensor) -> Tensor:
        """(E,) whether a goal counts as reached."""
        near = theta < self.cfg.success_angle
        return near.any(1) if self.cfg.repaired(self.cfg.either_cube) else near[:, 1]

    def state_dict(self) -> dict[str, Tensor]:
        return {**super().state_dict(), "goals": self._goals.clone(), "reached": self._reached.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict(state)
        self._goals, self._reached = state["goals"].to(self._goals).clone(), state["reached"].to(self._reached).clone()
