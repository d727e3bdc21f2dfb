"""Ant: four legs on a free torso. Run forward, stay between 0.2 m and 1 m, pay for effort and for contact."""

from typing import ClassVar

import torch
from torch import Tensor

from dima_isaac.errors import UsageError
from dima_isaac.sim.engine import Engine
from dima_isaac.tasks.mamujoco.harl import Harl
from dima_isaac.tasks.mamujoco.robot import Robot


class Ant(Robot):
    """State: qpos without x and y (13), qvel (14), clipped external forces on every body but the world (78)."""

    scenario = "Ant"
    partitions = ("4x2", "2x4", "2x4d")
    nq, nv, nu, nbody = 15, 14, 8, 14
    state_fields: ClassVar[dict[str, int]] = {"qpos": 2, "qvel": 0, "cfrc_ext": 6}
    extra_fields = ("xpos",)
    local_categories: ClassVar[list[list[str]]] = [["qpos", "qvel", "cfrc_ext"], ["qpos"]]
    normal_velocity = True
    # without a force sensor MuJoCo 2 left the forces of -v2's state and cost at zero
    harl = Harl(state_fields={"qpos": 2, "qvel": 0}, zeros=84, constants={"contact_cost_weight": 0.0})

    def bind(self, engine: Engine) -> None:
        positions, body = engine.field("xpos"), int(self.definition.constants["main_body"])
        last = positions.shape[1] - 1
        if not 0 <= body <= last:
            raise UsageError(f"{self.scenario} has no body main_body={body}; its bodies are 0 to {last}.")
        self._torso_x = positions[:, body, 0]
        super().bind(engine)
        self.limits = {"cfrc_ext": float(self.definition.constants["contact_force_range"][1])}

    def _progress(self) -> Tensor:
        return self._torso_x

    def _fallen(self) -> Tensor:
        low, high = self.definition.constants["healthy_z_range"]
        height = self._qpos[:, 2]
        sound = torch.isfinite(self._qpos).all(1) & torch.isfinite(self._qvel).all(1)
        return ~(sound & (height >= low) & (height <= high))

    def _contact(self) -> Tensor:
        """(E,) weighted sum of squared, clipped external forces."""
        if "cfrc_ext" not in self._fields:
            return torch.zeros_like(self._torso_x)
        low, high = self.definition.constants["contact_force_range"]
        return self._constant("contact_cost_weight") * self._fields["cfrc_ext"].clamp(low, high).square().sum(1)

    def _reward(self, fallen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        forward = self._speed() * self._constant("forward_reward_weight")
        upright = self._upright(fallen)
        effort = self._effort()
        contact = self._contact()
        reward = (forward + upright) - (effort + contact)
        return reward, {"forward": forward, "upright": upright, "effort": -effort, "contact": -contact}
