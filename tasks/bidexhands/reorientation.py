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

from __future__ import annotations

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
UNJUDGED = -1  # goals reached by a start: what it happens to meet is paid after its first control step
STARTS: tuple[Vec3, Vec3] = ((0.0, -0.39, 0.6), (0.0, -0.76, 0.6))
GOAL_HEIGHT = 0.56


@dataclass
class ShadowHandReOrientationConfig(TwoHandConfig):
    """The published numbers."""

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

    def __init__(self, cfg: ShadowHandReOrientationConfig) -> None:
        block, marker = (Mjcf(path=str(ASSETS / f"{name}.xml")) for name in ("block", "block_goal"))
        props = [Prop(Actor(f"cube{i}", block, pos), jitter="object", spin="object") for i, pos in enumerate(STARTS)]
        for i, (x, y, _) in enumerate(STARTS):
            props.append(Prop(Actor(f"goal{i}", marker, (x, y, GOAL_HEIGHT), marker=True), spin="goal"))
        hands = Hands(pos=((0.0, 0.0, 0.5), (0.0, -1.15, 0.5)), free=False)
        camera = ((1.05, -0.575, 1.1), (0.0, -0.575, 0.5))
        super().__init__("ShadowHandReOrientation", cfg, hands, props, 2 * (13 + 11), objects=(0, 24), camera=camera)
        self.cfg: ShadowHandReOrientationConfig = cfg

    def bind(self, engine: Engine) -> None:
        """Allocate the episode's goals, too."""
        super().bind(engine)
        self._goals = torch.zeros(engine.num_envs, GOALS, 4, device=engine.device)
        self._reached = torch.zeros(engine.num_envs, dtype=torch.int64, device=engine.device)

    def reset(self, engine: Engine, mask: Tensor, noise: Noise) -> None:
        """Draw the goals that follow the first one, too."""
        super().reset(engine, mask, noise)
        drawn = spin(noise.uniform(2 * GOALS).unflatten(1, (GOALS, 2)))
        self._goals = torch.where(mask[:, None, None], drawn, self._goals)
        self._reached = self._reached.masked_fill(mask, UNJUDGED)

    def act(self, engine: Engine, action: Tensor) -> None:
        """Give both goals their next orientation where one was reached."""
        hit = self._hit(self._angles(engine)) & (self._reached > UNJUDGED)
        turn = self._goals.gather(1, (self._reached % GOALS).view(-1, 1, 1).expand(-1, 1, 4)).squeeze(1)
        for i in range(2):
            goal = self.root(f"goal{i}")
            engine.set_root_state(hit, self._actor[f"goal{i}"], torch.cat([goal[:, :3], turn, goal[:, 7:]], 1))
        self._reached = (self._reached + hit).clamp_min(0)
        super().act(engine, action)

    def tail(self, engine: Engine) -> list[Tensor]:
        """For each cube its 13 numbers; its goal's pose, and the turn from goal to cube."""
        parts = []
        for i in range(2):
            cube, goal = self.root(f"cube{i}"), self.root(f"goal{i}")
            parts += [cube, goal[:, :7], quat_div(cube[:, 3:7], goal[:, 3:7])]
        return parts

    def compute_reward(self, engine: Engine) -> Outcome:
        """Reward, drops and goals reached."""
        cfg = self.cfg
        pairs = [(self.root(f"cube{i}"), self.root(f"goal{i}")) for i in range(2)]
        gap = torch.stack([distance(cube[:, :3], goal[:, :3]) for cube, goal in pairs], 1)
        theta = self._angles(engine)
        hit = self._hit(theta)
        terms = {
            "distance": cfg.distance_scale * gap.sum(1),
            "rotation": (1.0 / (theta + cfg.rotation_eps)).sum(1),
            "action": cfg.action_scale * self._last_action.square().sum((1, 2)),
            "goal": cfg.goal_bonus * hit,
        }
        low = torch.stack([cube[:, 2] for cube, _ in pairs], 1) <= cfg.drop_height
        return sum_of(terms, low.any(1), hit)

    def _angles(self, engine: Engine) -> Tensor:
        """(E, 2) angle of each cube to its goal."""
        pairs = [(self.root(f"cube{i}"), self.root(f"goal{i}")) for i in range(2)]
        return torch.stack([angle_between(cube[:, 3:7], goal[:, 3:7]) for cube, goal in pairs], 1)

    def _hit(self, theta: Tensor) -> Tensor:
        """(E,) whether a goal counts as reached."""
        near = theta < self.cfg.success_angle
        return near.any(1) if self.cfg.repaired(self.cfg.either_cube) else near[:, 1]

    def state_dict(self) -> dict[str, Tensor]:
        """The episode's goals, too."""
        return {**super().state_dict(), "goals": self._goals.clone(), "reached": self._reached.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict``."""
        super().load_state_dict(state)
        self._goals, self._reached = state["goals"].to(self._goals).clone(), state["reached"].to(self._reached).clone()
