"""The engines' settings, and the reason for each value. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dima_isaac.schema import Count, CountOrZero, Few, FewOrZero, Fraction, NonNegative, Positive


class Cone(Enum):
    """How MuJoCo bounds friction."""

    pyramidal = "pyramidal"  # linear faces; about a tenth cheaper per step
    elliptic = "elliptic"  # the exact cone; holds grasped objects with less creep


class Pace(Enum):
    """How finely a control step is cut."""

    standard = "standard"  # 4 physics steps: 1/240 s
    fast = "fast"  # 2 physics steps: 1/120 s; half the cost, and joints are as calm (three tasks shaken)


PACE_SUBSTEPS = {Pace.standard: 4, Pace.fast: 2}


@dataclass
class PhysicsConfig:
    """What both MuJoCo engines compile a scene with. One set of values: a policy learned on one engine meets the same
    hands, gains and friction on the other, and their trajectories can be compared number by number."""

    pace: Pace = Pace.standard
    substeps: FewOrZero = 0  # physics steps per control step; 0 takes the pace's
    cone: Cone = Cone.pyramidal
    impratio: Positive = 1.0  # frictional over normal stiffness; 10 with elliptic cones stops slip at some cost
    iterations: Few = 50  # Newton steps at most; two to four is usual, the cap only bounds the worst contact
    ls_iterations: Few = 50  # line search steps at most
    tolerance: NonNegative = 1e-8  # MuJoCo's own; looser values measured no faster
    contact_time: NonNegative = 0.0  # contact spring time constant (s); 0 keeps the assets' 0.02; never below two steps
    stiffness_scale: NonNegative = 1.0  # multiplies every position drive's gain (the hand's published 5 and 1)
    joint_damping_scale: NonNegative = 1.0  # multiplies the assets' joint damping
    reference_step: Positive = 1.0 / 120.0  # the step h of the reference engine's damping, v <- (v + F h / m)(1 - c h)
    damp_joints: bool = True  # that damping acts on every link, so a moving hand's fingers feel it too
    max_speed: Positive = 1000.0  # rad/s or m/s; faster is a broken simulation (docs/results.md: 35 when shaken)

    @property
    def steps(self) -> int:
        """Physics steps per control step."""
        return self.substeps or PACE_SUBSTEPS[self.pace]


@dataclass
class MujocoConfig(PhysicsConfig):
    """MuJoCo on the CPU, one simulation per environment on a pool of threads."""

    threads: FewOrZero = 0  # 0 takes every core this process may use (its affinity, so cgroups and SLURM are respected)
    persistent: bool | None = None  # one MjData per environment: observations cost a fifth less; None: if it fits
    persistent_share: Fraction = 0.25  # the share of free memory that persistent simulations may take


@dataclass
class MujocoWarpConfig(PhysicsConfig):
    """MuJoCo-Warp: every environment in one CUDA graph (or, slowly, on Warp's CPU device). float32 throughout."""

    tolerance: NonNegative = 1e-6  # the least that MuJoCo-Warp accepts: below it float32 rounding wins
    nconmax: CountOrZero = (
        0  # contacts per environment, shared by all of them; 0: half as many again as colliding geoms
    )
    njmax: CountOrZero = (
        0  # constraint rows per environment, its own; 0: every limit, and half of its contacts at full rows
    )
    deterministic: bool = False  # same bits on every run of a GPU: sorts contacts and orders sums; cost not known yet


class Share(Enum):
    """How the Isaac Gym process and this one see the same numbers."""

    device = "device"  # where sim_device is: GPU memory opened by both (CUDA IPC), or host memory on a CPU
    host = "host"  # host memory, whatever sim_device is: two copies a step, for where CUDA IPC is forbidden


@dataclass
class IsaacGymConfig:
    """Isaac Gym Preview 4 in a process of its own. Defaults are Bi-DexHands' simulation parameters."""

    python: str = ""  # an interpreter that can import isaacgym (Python 3.8); empty: DIMA_ISAACGYM_PYTHON
    share: Share = Share.device
    substeps: FewOrZero = 2  # physics steps of 1/120 s in a control step
    position_iterations: Few = 8
    velocity_iterations: FewOrZero = 0
    contact_offset: NonNegative = 0.002  # m
    rest_offset: NonNegative = 0.0
    bounce_threshold_velocity: NonNegative = 0.2  # m/s
    max_depenetration_velocity: Positive = 1000.0
    buffer_size_multiplier: Positive = 5.0
    max_gpu_contact_pairs: Count = 8 * 1024 * 1024
    num_threads: FewOrZero = 4  # of PhysX on a CPU
    spacing: NonNegative = 1.5  # m between environments; no observation depends on it
    tendon_limit_stiffness: NonNegative = 30.0
    tendon_damping: NonNegative = 0.1
    max_speed: Positive = 1000.0  # rad/s or m/s; faster is a broken simulation
    start_patience: Positive = 600.0  # s until the scene stands: the first start compiles gymtorch
    patience: Positive = 60.0  # s that one step may take
