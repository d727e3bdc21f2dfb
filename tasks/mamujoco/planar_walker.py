"""Hopper and Walker2d: legs under a torso in the plane. Run forward and do not fall."""

from typing import ClassVar

from torch import Tensor

from dima_isaac.tasks.mamujoco.harl import Harl
from dima_isaac.tasks.mamujoco.robot import Robot


class PlanarWalker(Robot):
    """State: qpos without x, qvel clipped to +-10. Fallen when height or pitch leave their ranges."""

    state_fields: ClassVar[dict[str, int]] = {"qpos": 1, "qvel": 0}
    limits: ClassVar[dict[str, float]] = {"qvel": 10.0}

    def _fallen(self) -> Tensor:
        height, pitch = self._qpos[:, 1], self._qpos[:, 2]
        low, high = self.definition.constants["healthy_z_range"]
        back, front = self.definition.constants["healthy_angle_range"]
        return ~((low < height) & (height < high) & (back < pitch) & (pitch < front))

    def _reward(self, fallen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        forward = self._constant("forward_reward_weight") * self._speed()
        upright = self._upright(fallen)
        effort = self._effort()
        return (forward + upright) - effort, {"forward": forward, "upright": upright, "effort": -effort}


class Walker2d(PlanarWalker):
    """Two legs. gymnasium-robotics' agents see velocities unclipped that its ``state`` clips; ours see the state's."""

    scenario = "Walker2d"
    partitions = ("2x3",)
    nq, nv, nu = 9, 9, 6
    harl = Harl(asset="walker2d.xml")


class Hopper(PlanarWalker):
    """One leg; also fallen when any coordinate but x and z leaves +-100."""

    scenario = "Hopper"
    partitions = ("3x1",)
    nq, nv, nu = 6, 6, 3
    harl = Harl()

    def _fallen(self) -> Tensor:
        low, high = self.definition.constants["healthy_state_range"]
        angles = ((low < self._qpos[:, 2:]) & (self._qpos[:, 2:] < high)).all(1)
        speeds = ((low < self._qvel) & (self._qvel < high)).all(1)
        return super()._fallen() | ~(angles & speeds)
