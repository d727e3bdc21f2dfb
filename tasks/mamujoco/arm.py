"""Reacher and Pusher: arms that bring a tip, or an object, to a goal."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dima_isaac.envs.noise import Noise
from dima_isaac.sim.engine import Engine
from dima_isaac.tasks.mamujoco.factorisation import encode
from dima_isaac.tasks.mamujoco.robot import Robot

_POSE_NOISE, _SPEED_NOISE, _REACH = 0.1, 0.005, 0.2  # rad, rad/s, m
_FIELD = ((-0.3, 0.0), (-0.2, 0.2))  # m, where Pusher's object starts
_CLEARANCE = 0.17  # m, from the goal
_PROPOSALS = 32  # each is accepted with probability 0.62


class Arm(Robot):
    """Base of both: bodies by name instead of fields by range."""

    state_fields: ClassVar[dict[str, int]] = {}
    extra_fields = ("xpos",)
    bodies: ClassVar[tuple[str, ...]]
    width: ClassVar[int]  # D

    def _layout(self) -> dict[str, tuple[int, int]]:
        return {"state": (0, self.width)}

    def bind(self, engine: Engine) -> None:
        positions = engine.field("xpos")
        self._at = {name: positions[:, engine.body_names.index(name)] for name in self.bodies}
        super().bind(engine)

    def _effort(self) -> Tensor:
        return self._ctrl.square().sum(1) * self._constant("reward_control_weight")

    def _distance(self, one: str, other: str, weight: str) -> Tensor:
        return torch.linalg.vector_norm(self._at[one] - self._at[other], dim=1) * self._constant(weight)


@dataclass(frozen=True)
class _Angle:
    """A joint angle of which the state holds cosine and sine: NumPy's functions of it give their columns."""

    cosine: float
    sine: float

    def cos(self) -> float:
        return self.cosine

    def sin(self) -> float:
        return self.sine


class Reacher(Arm):
    """State: cosines and sines of both joints, the target, joint velocities, fingertip less target (x, y)."""

    scenario = "Reacher"
    partitions = ("2x1",)
    nq, nv, nu, width = 4, 4, 2, 10
    bodies = ("fingertip", "target")
    local_categories: ClassVar[list[list[str]]] = [["qpos", "qvel", "fingertip_dist"], ["qpos"]]

    def _columns(self) -> Any:
        at, zero = encode(range(self.width)), float(encode(self.width))
        angles = np.array([_Angle(at[0], at[2]), _Angle(at[1], at[3]), at[4], at[5]], dtype=object)
        places = {"fingertip": np.array([at[8], at[9], zero]), "target": np.zeros(3)}
        return SimpleNamespace(
            qpos=angles, qvel=np.array([at[6], at[7], zero, zero]), body=lambda name: SimpleNamespace(xpos=places[name])
        )

    def _state64(self) -> Tensor:
        angle = self._qpos[:, :2]
        if angle.device.type == "cpu":
            # NumPy's cosine and torch's differ in the last bit, and the benchmark's is NumPy's
            cosine, sine = torch.from_numpy(np.cos(angle.numpy())), torch.from_numpy(np.sin(angle.numpy()))
        else:
            cosine, sine = angle.cos(), angle.sin()
        offset = (self._at["fingertip"] - self._at["target"])[:, :2]
        return torch.cat([cosine, sine, self._qpos[:, 2:], self._qvel[:, :2], offset], 1)

    def _start(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """The target is uniform over a disc."""
        pose = self._qpos0[:2] + _POSE_NOISE * noise.uniform(2).to(torch.float64)
        radius, turn = noise.uniform(2).to(torch.float64).unbind(1)
        radius = _REACH * ((radius + 1.0) / 2.0).sqrt()
        target = torch.stack([radius * (torch.pi * turn).cos(), radius * (torch.pi * turn).sin()], 1)
        speed = self._qvel0[:2] + _SPEED_NOISE * noise.uniform(2).to(torch.float64)
        return torch.cat([pose, target], 1), torch.cat([speed, torch.zeros_like(speed)], 1)

    def _reward(self, fallen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        distance = -self._distance("fingertip", "target", "reward_dist_weight")
        effort = -self._effort()
        return distance + effort, {"distance": distance, "effort": effort}


class Pusher(Arm):
    """State: seven joint angles and velocities, then the places of tip, object and goal."""

    scenario = "Pusher"
    partitions = ("3p",)
    nq, nv, nu, width = 11, 11, 7, 23
    bodies = ("tips_arm", "object", "goal")

    def _columns(self) -> Any:
        at, zero = encode(range(self.width)), encode([self.width] * 4)
        places = {name: at[14 + 3 * i : 17 + 3 * i] for i, name in enumerate(self.bodies)}
        return SimpleNamespace(
            qpos=np.concatenate([at[:7], zero]),
            qvel=np.concatenate([at[7:14], zero]),
            body=lambda name: SimpleNamespace(xpos=places[name]),
        )

    def _state64(self) -> Tensor:
        return torch.cat([self._qpos[:, :7], self._qvel[:, :7], *(self._at[name] for name in self.bodies)], 1)

    def bind(self, engine: Engine) -> None:
        super().bind(engine)
        self._field = torch.tensor(_FIELD, dtype=torch.float64, device=engine.device)

    def _start(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """The object is uniform over a rectangle less a disc around the goal: the first proposal outside it."""
        draws = noise.uniform(2 * _PROPOSALS).to(torch.float64).unflatten(1, (_PROPOSALS, 2))
        low, high = self._field.unbind(1)
        places = low + (high - low) * (draws + 1.0) / 2.0
        clear = torch.linalg.vector_norm(places, dim=2) > _CLEARANCE
        chosen = clear.int().argmax(1)
        place = places.gather(1, chosen[:, None, None].expand(-1, 1, 2)).squeeze(1)
        rest = self._qpos0.expand(len(place), -1)
        speed = self._qvel0[:7] + _SPEED_NOISE * noise.uniform(7).to(torch.float64)
        still = torch.zeros(len(place), 4, dtype=torch.float64, device=draws.device)
        return torch.cat([rest[:, :7], place, torch.zeros_like(place)], 1), torch.cat([speed, still], 1)

    def _reward(self, fallen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        near = -self._distance("object", "tips_arm", "reward_near_weight")
        distance = -self._distance("object", "goal", "reward_dist_weight")
        effort = -self._effort()
        return distance + effort + near, {"near": near, "distance": distance, "effort": effort}
