"""The values that Isaac Gym's calls take and give: vectors, poses, options, properties. Attributes keep its names.

Quaternions are xyzw. What means nothing to MuJoCo is accepted and ignored (docs/gym.md has a list).
"""

import math
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import torch

from dima_isaac.sim.rotations import from_rpy, quat_conj, quat_div, rotate, to_rpy


class SimType(IntEnum):
    SIM_PHYSX, SIM_FLEX = 0, 1


class UpAxis(IntEnum):
    UP_AXIS_Y, UP_AXIS_Z = 0, 1


class DofDriveMode(IntEnum):
    DOF_MODE_NONE, DOF_MODE_POS, DOF_MODE_VEL, DOF_MODE_EFFORT = range(4)


class CoordinateSpace(IntEnum):
    ENV_SPACE, LOCAL_SPACE, GLOBAL_SPACE = range(3)


class IndexDomain(IntEnum):
    DOMAIN_ENV, DOMAIN_SIM, DOMAIN_ACTOR = range(3)


class MeshType(IntEnum):
    MESH_NONE, MESH_COLLISION, MESH_VISUAL, MESH_VISUAL_AND_COLLISION = range(4)


class MeshNormalMode(IntEnum):
    FROM_ASSET, COMPUTE_PER_VERTEX, COMPUTE_PER_FACE = range(3)


class ImageType(IntEnum):
    IMAGE_COLOR, IMAGE_DEPTH, IMAGE_SEGMENTATION, IMAGE_OPTICAL_FLOW = range(4)


class ContactCollection(IntEnum):
    CC_NEVER, CC_LAST_SUBSTEP, CC_ALL_SUBSTEPS = range(3)


_KEYS = ("SPACE", "ESCAPE", "ENTER", "UP", "DOWN", "LEFT", "RIGHT", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
KeyboardInput = IntEnum("KeyboardInput", [f"KEY_{key}" for key in _KEYS])  # type: ignore[misc]


@dataclass
class Vec3:
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0

    def __iter__(self) -> Iterator[float]:
        return iter((float(self.x), float(self.y), float(self.z)))

    def __add__(self, other: "Vec3") -> "Vec3":
        return Vec3(*(a + b for a, b in zip(self, other, strict=True)))

    def __sub__(self, other: "Vec3") -> "Vec3":
        return self + other * -1.0

    def __mul__(self, factor: float) -> "Vec3":
        return Vec3(*(a * factor for a in self))

    __rmul__ = __mul__

    def __neg__(self) -> "Vec3":
        return self * -1.0

    def length(self) -> float:
        return math.hypot(*self)

    def normalize(self) -> "Vec3":
        return self * (1.0 / self.length())


@dataclass
class Quat:
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    w: float = 1.0

    def __iter__(self) -> Iterator[float]:
        return iter((float(self.x), float(self.y), float(self.z), float(self.w)))

    @staticmethod
    def from_euler_zyx(roll: float, pitch: float, yaw: float) -> "Quat":
        """Rz(yaw) Ry(pitch) Rx(roll)."""
        return Quat(*from_rpy(roll, pitch, yaw))

    @staticmethod
    def from_axis_angle(axis: Vec3, angle: float) -> "Quat":
        unit = axis.normalize() * math.sin(0.5 * angle)
        return Quat(unit.x, unit.y, unit.z, math.cos(0.5 * angle))

    def to_euler_zyx(self) -> tuple[float, ...]:
        """Roll, pitch and yaw in (-pi, pi]."""
        return tuple(math.remainder(angle, 2.0 * math.pi) for angle in to_rpy(_tensor(self)).tolist())

    def __mul__(self, other: "Quat") -> "Quat":
        return Quat(*quat_div(_tensor(self), quat_conj(_tensor(other))).tolist())

    def inverse(self) -> "Quat":
        return Quat(-self.x, -self.y, -self.z, self.w)

    def rotate(self, vector: Vec3) -> Vec3:
        return Vec3(*rotate(_tensor(self), _tensor(vector)).tolist())


def _tensor(numbers: Iterable[float]) -> torch.Tensor:
    return torch.tensor(list(numbers), dtype=torch.float64)


@dataclass
class Transform:
    p: Vec3 = field(default_factory=Vec3)
    r: Quat = field(default_factory=Quat)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, copy(value))  # a struct's member is assigned by value

    def __iter__(self) -> Iterator[float]:
        return iter((*self.p, *self.r))

    def __mul__(self, other: "Transform") -> "Transform":
        return Transform(self.transform_point(other.p), self.r * other.r)

    def transform_point(self, point: Vec3) -> Vec3:
        return self.p + self.r.rotate(point)

    def transform_vector(self, vector: Vec3) -> Vec3:
        return self.r.rotate(vector)

    def inverse(self) -> "Transform":
        back = self.r.inverse()
        return Transform(-back.rotate(self.p), back)


class _Open:
    """A struct whose members are kept as they are set; reading one that never was raises AttributeError."""

    def __init__(self, **members: Any) -> None:
        vars(self).update(members)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class PhysXParams(_Open):
    """Of PhysX alone; MuJoCo has one contact solver, and nothing here changes it."""

    def __init__(self) -> None:
        super().__init__(use_gpu=False, num_threads=0, num_subscenes=0, solver_type=1)
        self.num_position_iterations, self.num_velocity_iterations = 4, 1
        self.max_gpu_contact_pairs, self.default_buffer_size_multiplier = 1024 * 1024, 2.0
        self.contact_offset, self.rest_offset, self.bounce_threshold_velocity = 0.02, 0.001, 0.2
        self.max_depenetration_velocity, self.contact_collection = 100.0, ContactCollection.CC_ALL_SUBSTEPS


@dataclass
class SimParams:
    dt: float = 1.0 / 60.0
    substeps: int = 2
    gravity: Vec3 = field(default_factory=lambda: Vec3(0.0, -9.8, 0.0))
    up_axis: int = UpAxis.UP_AXIS_Y
    use_gpu_pipeline: bool = False
    num_client_threads: int = 0
    physx: PhysXParams = field(default_factory=PhysXParams)
    flex: _Open = field(default_factory=_Open)


@dataclass
class PlaneParams:
    normal: Vec3 = field(default_factory=lambda: Vec3(0.0, 0.0, 1.0))
    distance: float = 0.0
    static_friction: float = 1.0
    dynamic_friction: float = 1.0
    restitution: float = 0.0
    segmentation_id: int = 0


class CameraProperties(_Open):
    """Of a camera or a viewer; there are no cameras here, and MuJoCo's window has its own size."""


class VhacdParams(_Open):
    """Of a convex decomposition; MuJoCo takes each mesh's own convex hull."""


class AssetOptions(_Open):
    """Options of an asset. Those that act: fix_base_link, collapse_fixed_joints, disable_gravity, density (kg/m^3),
    armature, linear_damping, angular_damping (1/s), default_dof_drive_mode."""

    fix_base_link: bool
    collapse_fixed_joints: bool
    disable_gravity: bool

    def __init__(self) -> None:
        super().__init__(fix_base_link=False, collapse_fixed_joints=False, disable_gravity=False)
        self.density, self.armature, self.linear_damping, self.angular_damping = 1000.0, 0.0, 0.0, 0.5
        self.default_dof_drive_mode = DofDriveMode.DOF_MODE_NONE
        self.thickness, self.max_linear_velocity, self.max_angular_velocity = 0.02, 1000.0, 64.0
        self.vhacd_enabled, self.vhacd_params = False, VhacdParams()


@dataclass
class ForceSensorProperties:
    enable_forward_dynamics_forces: bool = True
    enable_constraint_solver_forces: bool = True
    use_world_frame: bool = False


@dataclass
class RigidBodyProperties:
    mass: float = 0.0


@dataclass
class RigidShapeProperties:
    """Of a shape; ``friction`` acts."""

    friction: float = 1.0
    restitution: float = 0.0
    rolling_friction: float = 0.0
    torsion_friction: float = 0.0
    compliance: float = 0.0
    thickness: float = 0.0
    contact_offset: float = 0.0
    rest_offset: float = 0.0
    filter: int = 0


@dataclass
class TendonProperties:
    stiffness: float = 0.0
    damping: float = 0.0
    limit_stiffness: float = 0.0
    fixed_spring_rest_length: float = 0.0
    fixed_lower_limit: float = 0.0
    fixed_upper_limit: float = 0.0
    is_fixed_limited: bool = True
    num_joints: int = 0


@dataclass
class ActuatorProperties:
    kp: float = 0.0
    kv: float = 0.0
    motor_effort: float = 0.0  # the gear of a motor
    control_limited: bool = False
    force_limited: bool = False
    lower_control_limit: float = 0.0
    upper_control_limit: float = 0.0
    lower_force_limit: float = 0.0
    upper_force_limit: float = 0.0


_FLOATS = ("velocity", "effort", "stiffness", "damping", "friction", "armature")
DOF_PROPERTIES = np.dtype(
    [("hasLimits", np.bool_), ("lower", np.float32), ("upper", np.float32), ("driveMode", np.int32)]
    + [(name, np.float32) for name in _FLOATS],
    align=True,  # as a C struct is: torch takes no columns of packed rows
)
