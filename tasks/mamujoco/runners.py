"""HalfCheetah and Swimmer: run or swim. Reward is forward speed less effort; an episode never ends by itself."""

from typing import ClassVar

from torch import Tensor

from dima_isaac.tasks.mamujoco.harl import Harl
from dima_isaac.tasks.mamujoco.robot import Robot


class Runner(Robot):
    """Base of both."""

    harl = Harl()

    def _reward(self, fallen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        forward = self._constant("forward_reward_weight") * self._speed()
        effort = self._effort()
        return forward - effort, {"forward": forward, "effort": -effort}


class HalfCheetah(Runner):
    """Two legs in the plane. State: qpos without x (8), qvel (9)."""

    scenario = "HalfCheetah"
    partitions = ("2x3", "6x1")
    nq, nv, nu = 9, 9, 6
    state_fields: ClassVar[dict[str, int]] = {"qpos": 1, "qvel": 0}
    normal_velocity = True


class Swimmer(Runner):
    """Three links in a viscous plane. State: qpos without x and y (3), qvel (5)."""

    scenario = "Swimmer"
    partitions = ("2x1",)
    nq, nv, nu = 5, 5, 2
    state_fields: ClassVar[dict[str, int]] = {"qpos": 2, "qvel": 0}
