"""Where episodes begin: spawn joints and roots, and the noise that each episode draws.

On a CPU few environments start in one control step, and the number of operations decides what a start costs: all noise
of a start is one draw, and all roots are computed together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dima_isaac.sim.engine import Engine, names_to_index
from dima_isaac.sim.scene import Actor


@dataclass(frozen=True)
class Prop:
    """An actor beside the hands, and how it starts. Props with the same ``jitter`` or ``spin`` label share a sample."""

    actor: Actor
    jitter: str = ""  # position noise of this label, if any
    level: bool = False  # that noise is horizontal: the prop rests on something
    spin: str = ""  # random orientation Rx(pi u) Ry(pi v) of this label, if any
    joints: dict[str, float] = field(default_factory=dict)  # its joints that do not start at 0
    joint_vel: dict[str, float] = field(default_factory=dict)


def spawn_joints(
    engine: Engine, hands: Sequence[str], hand_start: dict[str, float], props: Sequence[Prop]
) -> tuple[Tensor, Tensor]:
    """Positions and velocities (dofs,) of all joints as the scene has them, on the engine's device."""
    start = {f"{hand}/{joint}": value for hand in hands for joint, value in hand_start.items()}
    start |= {f"{prop.actor.name}/{joint}": value for prop in props for joint, value in prop.joints.items()}
    speed = {f"{prop.actor.name}/{joint}": value for prop in props for joint, value in prop.joint_vel.items()}
    rows = []
    for values in (start, speed):
        row = torch.zeros(len(engine.dof_names))
        row[names_to_index(engine.dof_names, list(values))] = torch.tensor(list(values.values()))
        rows.append(row.to(engine.device))
    return rows[0], rows[1]


class JointStart:
    """Both hands' joints around where they rest; the other dofs of the scene always start the same."""

    def __init__(self, rest: Tensor, lower: Tensor, upper: Tensor, hand_dofs: Tensor, noise: float, clamps: bool):
        """``rest``, ``lower`` and ``upper`` (dofs,); ``hand_dofs`` (2, J); ``noise`` is a share of the joint range."""
        self._noise, self._clamps, self._dofs = noise, clamps, hand_dofs.flatten()
        self.draw = hand_dofs.shape[1] if noise else 0
        self._lower, self._upper, self._rest = (row[hand_dofs] for row in (lower, upper, rest))
        self._below, self._span = self._lower - self._rest, self._upper - self._lower
        still = self._rest.clamp(self._lower, self._upper) if clamps else self._rest
        self._first = rest.index_copy(0, self._dofs, still.flatten())

    def positions(self, u: Tensor) -> Tensor:
        """(E, dofs) for a sample ``u`` (E, draw) in [-1, 1), one for both hands."""
        first = self._first.expand(len(u), -1)
        if not self._noise:
            return first
        # u spans (-1, 1) where (0, 1) would stay within the limits, as published
        joints = self._rest + self._noise * (self._below + self._span * u.unsqueeze(1))
        if self._clamps:
            joints = joints.clamp(self._lower, self._upper)
        return first.index_copy(1, self._dofs, joints.flatten(1))


class RootStart:
    """Poses of the actors that can be moved: where they were put, with shared position noise and shared spins."""

    def __init__(self, movers: Sequence[Prop], noise: float, device: torch.device) -> None:
        """``noise`` is the half range of a position, m."""
        self.names = [mover.actor.name for mover in movers]
        self._noise = noise
        jitters = list(dict.fromkeys(mover.jitter for mover in movers if mover.jitter and noise))
        spins = list(dict.fromkeys(mover.spin for mover in movers if mover.spin))
        self.draws = [3] * len(jitters) + [2] * len(spins)
        self._jitters, self._spins = len(jitters), len(spins)
        still = (0.0,) * 6
        poses = [(*mover.actor.pos, *mover.actor.quat, *still) for mover in movers]
        self._first = torch.tensor(poses, device=device).view(1, len(movers), 13)
        labels = [jitters.index(mover.jitter) if mover.jitter in jitters else -1 for mover in movers]
        self._shift_of = torch.tensor([max(label, 0) for label in labels], device=device)
        axes = [(label >= 0, label >= 0, label >= 0 and not m.level) for label, m in zip(labels, movers, strict=True)]
        self._axes = torch.tensor(axes, dtype=torch.float32, device=device)  # (movers, 3) 1 where the noise moves it
        # among all movers' own orientations, and then the spins
        own = [len(movers) + spins.index(m.spin) if m.spin else index for index, m in enumerate(movers)]
        self._quat_of = torch.tensor(own, device=device)

    def states(self, draws: list[Tensor], envs: int) -> Tensor:
        """(E, movers, 13) for ``draws``, one (E, n) in [-1, 1) for each n of ``self.draws``."""
        first = self._first.expand(envs, -1, -1)
        if not draws:
            return first
        pos, quat, still = first.split([3, 4, 6], 2)
        if self._jitters:
            shift = self._noise * torch.stack(draws[: self._jitters], 1)
            pos = pos + shift.index_select(1, self._shift_of) * self._axes
        if self._spins:
            spins = spin(torch.stack(draws[self._jitters :], 1))
            quat = torch.cat([quat, spins], 1).index_select(1, self._quat_of)
        return torch.cat([pos, quat, still], 2)


def spin(share: Tensor) -> Tensor:
    """Rx(pi u) Ry(pi v) for ``share`` (..., 2) in [-1, 1]: (..., 4); not uniform over rotations."""
    half = 0.5 * (math.pi * share)
    (sin_x, sin_y), (cos_x, cos_y) = half.sin().unbind(-1), half.cos().unbind(-1)
    return torch.stack([sin_x * cos_y, cos_x * sin_y, sin_x * sin_y, cos_x * cos_y], -1)
