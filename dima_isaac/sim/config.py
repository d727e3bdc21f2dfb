"""The engines' settings, and the reason for each value. Torch-free."""

from dataclasses import dataclass
from enum import Enum

from dima_isaac.schema import Count, CountOrZero, Few, FewOrZero, NonNegative, Positive

SUBSTEPS = 4
"""Physics steps of 1/240 s in a control step. Two cost half as much, and joints are as calm (three tasks shaken)."""


class Cone(Enum):
    """How MuJoCo bounds friction."""

    pyramidal = "pyramidal"  # linear faces; about a tenth cheaper per step
    elliptic = "elliptic"  # the exact cone; holds grasped objects with less creep


@dataclass
class PhysicsConfig:
    """What both MuJoCo engines compile a scene with. One set of values: a policy learned on one engine meets the same
    hands, gains and friction on the other, and their trajectories can be compared number by number."""

    substeps: FewOrZero = 0  # physics steps per control step; 0 takes ``SUBSTEPS``
    cone: Cone = Cone.pyramidal
    impratio: Positive = 1.0  # frictional over normal stiffness; 10 with elliptic cones stops slip at some cost
    iterations: Few = 50  # Newton steps at most; two to four is usual, the cap only bounds the worst contact
    ls_iterations: Few = 50  # line search steps at most
    stiffness_scale: NonNegative = 1.0  # multiplies every position drive's gain (the hand's published 5 and 1)
    joint_damping_scale: NonNegative = 1.0  # multiplies the assets' joint damping

    @property
    def steps(self) -> int:
        """Physics steps per control step."""
        return self.substeps or SUBSTEPS


@dataclass
class MujocoConfig(PhysicsConfig):
    """MuJoCo on the CPU, one simulation per environment on a pool of threads."""

    threads: FewOrZero = 0  # 0 takes every core that this process may use: its affinity and its container's quota
    persistent: bool | None = None  # one MjData per environment: observations cost a fifth less; None: if it fits


@dataclass
class MujocoWarpConfig(PhysicsConfig):
    """MuJoCo-Warp: every environment in one CUDA graph (or, slowly, on Warp's CPU device). float32 throughout."""

    nconmax: CountOrZero = 0  # contacts per environment, shared by all; 0: half as many again as colliding geoms
    njmax: CountOrZero = 0  # constraint rows per environment; 0: every limit, and half of its contacts at full rows
    deterministic: bool = False  # same bits on every run of a GPU: sorts contacts and orders sums; cost not known yet


class Pipeline(Enum):
    """Where Isaac Gym keeps its tensors while PhysX is on a GPU. On sim_device=cpu they are in host memory anyway."""

    gpu = "gpu"  # in GPU memory, which this process opens too (CUDA IPC)
    cpu = "cpu"  # in host memory, copied there and back in every step: for where CUDA IPC is forbidden


@dataclass
class IsaacGymConfig:
    """Isaac Gym Preview 4 in a process of its own. Defaults are Bi-DexHands' simulation parameters."""

    python: str = ""  # an interpreter that can import isaacgym (Python 3.8); empty: DIMA_ISAACGYM_PYTHON
    pipeline: Pipeline = Pipeline.gpu
    substeps: Few = 2  # physics steps of 1/120 s in a control step
    position_iterations: Few = 8
    buffer_size_multiplier: Positive = 5.0
    max_gpu_contact_pairs: Count = 8 * 1024 * 1024
