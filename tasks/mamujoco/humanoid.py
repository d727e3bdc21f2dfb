"""Humanoid walks, HumanoidStandup gets up: 17 actuators, and a state with every body's inertia, velocity and forces."""

from typing import ClassVar

import torch
from torch import Tensor

from dima_isaac.sim.engine import Engine
from dima_isaac.tasks.mamujoco.harl import Harl
from dima_isaac.tasks.mamujoco.robot import Robot

_V2_STATE = {"qpos": 2, "qvel": 0, "cinert": 0, "cvel": 0, "qfrc_actuator": 0}


class HumanoidBody(Robot):
    """State: qpos without x and y (22), qvel (23), and of every body but the world cinert (130), cvel (78) and
    cfrc_ext (78), with the actuators' joint forces (17) between the last two."""

    partitions = ("9|8",)
    nq, nv, nu, nbody = 24, 23, 17, 14
    state_fields: ClassVar[dict[str, int]] = {
        "qpos": 2,
        "qvel": 0,
        "cinert": 10,
        "cvel": 6,
        "qfrc_actuator": 6,
        "cfrc_ext": 6,
    }
    local_categories: ClassVar[list[list[str]]] = [
        ["qpos", "qvel", "cinert", "cvel", "qfrc_actuator", "cfrc_ext"],
        ["qpos"],
    ]

    def _impact(self, cost: str) -> Tensor:
        """(E,) weighted sum of squared external forces, within the benchmark's range."""
        if "cfrc_ext" not in self._fields:
            return torch.zeros_like(self._ctrl[:, 0])
        low, high = self.definition.constants[f"{cost}_cost_range"]
        return (self._constant(f"{cost}_cost_weight") * self._fields["cfrc_ext"].square().sum(1)).clamp(low, high)


class Humanoid(HumanoidBody):
    """Walk: the centre of mass's speed, upright between 1 m and 2 m."""

    scenario = "Humanoid"
    harl = Harl(_V2_STATE, zeros=84, constants={"contact_cost_weight": 0.0})
    extra_fields = ("xipos",)

    def bind(self, engine: Engine) -> None:
        self._mass = engine.constant("body_mass")
        self._body_x = engine.field("xipos")[:, :, 0]
        super().bind(engine)

    def _progress(self) -> Tensor:
        return (self._body_x * self._mass).sum(1) / self._mass.sum()

    def _fallen(self) -> Tensor:
        low, high = self.definition.constants["healthy_z_range"]
        height = self._qpos[:, 2]
        return ~((low < height) & (height < high))

    def _reward(self, fallen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        forward = self._constant("forward_reward_weight") * self._speed()
        upright = self._upright(fallen)
        effort, contact = self._effort(), self._impact("contact")
        reward = (forward + upright) - (effort + contact)
        return reward, {"forward": forward, "upright": upright, "effort": -effort, "contact": -contact}


class HumanoidStandup(HumanoidBody):
    """Get up: height over one physics step, plus 1 for each step."""

    scenario = "HumanoidStandup"
    harl = Harl(_V2_STATE, zeros=84, constants={"impact_cost_weight": 0.0})

    def bind(self, engine: Engine) -> None:
        super().bind(engine)
        self._substep = engine.control_dt / engine.substeps

    def _reward(self, fallen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        up = self._qpos[:, 2] / self._substep
        effort, impact = self._effort(), self._impact("impact")
        return up - effort - impact + 1.0, {"up": up, "effort": -effort, "impact": -impact}
