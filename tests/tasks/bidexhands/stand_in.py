"""A stand-in for Isaac Gym under which the benchmark's own task classes can be built: it simulates nothing.

Assets are read for the names and frames of their links and joints, and the tensors that the classes acquire are zeros
to be written by a test. Its user's copy of the benchmark is imported from where it lies.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dima_isaac.sim.rotations import from_rpy, rotate


class Vec3:
    def __init__(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> None:
        self.x, self.y, self.z = float(x), float(y), float(z)

    def __add__(self, other: Vec3) -> Vec3:
        return Vec3(self.x + other.x, self.y + other.y, self.z + other.z)


class Quat:
    def __init__(self, x: float = 0.0, y: float = 0.0, z: float = 0.0, w: float = 1.0) -> None:
        self.x, self.y, self.z, self.w = x, y, z, w

    def from_euler_zyx(self, roll: float, pitch: float, yaw: float) -> Quat:
        return Quat(*from_rpy(roll, pitch, yaw))


class Transform:
    def __init__(self, p: Vec3 | None = None, r: Quat | None = None) -> None:
        self.p, self.r = p or Vec3(), r or Quat()

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, copy(value))  # a struct's member is assigned by value


@dataclass
class Link:
    """One link: where it stands in its parent, and the joint that moves it there."""

    name: str
    parent: int
    pos: tuple[float, ...] = (0.0, 0.0, 0.0)
    quat: tuple[float, ...] = (0.0, 0.0, 0.0, 1.0)
    axis: tuple[float, ...] = (1.0, 0.0, 0.0)
    slides: bool = False
    dof: int = -1


@dataclass
class Asset:
    links: list[Link] = field(default_factory=list)
    dofs: list[str] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    actuated: list[str] = field(default_factory=list)
    tendons: list[str] = field(default_factory=list)

    def poses(self, root: Tensor, angles: Tensor) -> Tensor:
        """Poses (E, links, 7) of a tree whose root is at ``root`` (E, 7), with joints at ``angles`` (E, dofs)."""
        found: list[Tensor] = []
        for link in self.links:
            if link.parent < 0:
                found.append(root)
                continue
            above = found[link.parent]
            pos = above[:, :3] + rotate(above[:, 3:], torch.tensor(link.pos).expand(len(root), 3))
            quat = quat_mul(above[:, 3:], torch.tensor(link.quat).expand(len(root), 4))
            if link.dof >= 0:
                axis, angle = torch.tensor(link.axis).expand(len(root), 3), angles[:, link.dof]
                if link.slides:
                    pos = pos + rotate(quat, axis) * angle[:, None]
                else:
                    quat = quat_mul(quat, quat_from_angle_axis(angle, axis))
            found.append(torch.cat([pos, quat], 1))
        return torch.stack(found, 1)


def read(path: Path, collapse: bool) -> Asset:
    return _urdf(path, collapse) if path.suffix == ".urdf" else _mjcf(path)


def _numbers(text: str | None) -> tuple[float, ...]:
    return tuple(float(word) for word in (text or "0 0 0").split())


def _urdf(path: Path, collapse: bool) -> Asset:
    """Links depth first. With ``collapse`` a link on a fixed joint is a part of the one above."""
    root, asset = ET.parse(path).getroot(), Asset()
    joints = root.findall("joint")
    children = {str(joint.find("child").get("link")) for joint in joints}  # type: ignore[union-attr]

    def add(name: str, link: Link) -> None:
        asset.links.append(link)
        here = len(asset.links) - 1
        for joint in joints:
            if joint.find("parent").get("link") != name:  # type: ignore[union-attr]
                continue
            child, origin, axis = (joint.find(tag) for tag in ("child", "origin", "axis"))
            below = str(child.get("link"))  # type: ignore[union-attr]
            pose = (origin.get("xyz"), origin.get("rpy")) if origin is not None else (None, None)
            moved = Link(below, here, _numbers(pose[0]), from_rpy(*_numbers(pose[1])))
            if joint.get("type") != "fixed":
                limit = joint.find("limit")
                moved.dof, moved.slides = len(asset.dofs), joint.get("type") == "prismatic"
                moved.axis = _numbers(axis.get("xyz")) if axis is not None else moved.axis
                asset.dofs.append(str(joint.get("name")))
                asset.lower.append(float(limit.get("lower", 0)) if limit is not None else 0.0)
                asset.upper.append(float(limit.get("upper", 0)) if limit is not None else 0.0)
            elif collapse:
                raise NotImplementedError(f"{path}: a fixed joint that is to be collapsed")
            add(below, moved)

    (base,) = (name for link in root.findall("link") if (name := str(link.get("name"))) not in children)
    add(base, Link(base, -1))
    return asset


def _mjcf(path: Path) -> Asset:
    """Bodies and joints depth first; frames are not read, since a hand's links are mirrored by name."""
    asset, nodes = Asset(), list(_included(path))

    def add(body: ET.Element, parent: int) -> None:
        asset.links.append(Link(str(body.get("name")), parent))
        here = len(asset.links) - 1
        for child in body:
            if child.tag == "joint" and child.get("type") != "free":
                low, high = _numbers(child.get("range"))[:2]
                asset.dofs.append(str(child.get("name")))
                asset.lower.append(low)
                asset.upper.append(high)
            elif child.tag == "body":
                add(child, here)

    for node in nodes:
        if node.tag == "body":
            add(node, -1)
        asset.actuated += [str(drive.get("joint")) for drive in node.iter("position") if node.tag == "actuator"]
        asset.tendons += [str(fixed.get("name")) for fixed in node.iter("fixed") if node.tag == "tendon"]
    return asset


def _included(path: Path) -> Iterator[ET.Element]:
    """Sections of a file and of those that it includes; bodies stand for themselves."""
    for node in ET.parse(path).getroot():
        if node.tag == "worldbody":
            yield from (child for child in node if child.tag == "body")
        for include in [node] if node.tag == "include" else node.findall("include"):
            yield from _included(path.parent / str(include.get("file")))
        if node.tag != "include":
            yield node


class Gym:
    """One simulation. Calls that only matter to physics or pictures do nothing."""

    NOTHING = ("add_ground", "apply_rigid_body_force_tensors", "begin_aggregate", "end_aggregate", "prepare_sim",
               "create_asset_force_sensor", "create_texture_from_file", "enable_actor_dof_force_sensors",
               "refresh_actor_root_state_tensor", "refresh_dof_force_tensor", "refresh_dof_state_tensor",
               "refresh_force_sensor_tensor", "refresh_rigid_body_state_tensor", "set_actor_dof_properties",
               "set_actor_rigid_shape_properties", "set_actor_root_state_tensor", "set_actor_root_state_tensor_indexed",
               "set_asset_tendon_properties", "set_dof_position_target_tensor",
               "set_dof_position_target_tensor_indexed", "set_dof_state_tensor_indexed", "set_rigid_body_color",
               "set_rigid_body_texture")  # fmt: skip

    def __init__(self) -> None:
        self.envs: list[list[tuple[str, Asset, Transform]]] = []

    def __getattr__(self, name: str) -> Any:
        if name in self.NOTHING:
            return lambda *args: 0
        raise AttributeError(f"the stand-in has no {name}")

    def create_sim(self, *args: Any) -> Gym:
        return self

    def create_env(self, *args: Any) -> list:
        self.envs.append([])
        return self.envs[-1]

    def load_asset(self, sim: Any, root: str, name: str, options: Any) -> Asset:
        return read(Path(root) / name, bool(options.collapse_fixed_joints))

    def create_box(self, *args: Any) -> Asset:
        return Asset([Link("box", -1)])

    create_sphere = create_box

    def create_actor(self, env: list, asset: Asset, pose: Transform, name: str, *args: Any) -> int:
        env.append((name, asset, pose))
        return len(env) - 1

    def get_actor_index(self, env: list, actor: int, domain: int) -> int:
        return sum(len(other) for other in self.envs[:-1]) + actor

    def get_asset_rigid_body_count(self, asset: Asset) -> int:
        return len(asset.links)

    get_asset_rigid_shape_count = get_asset_rigid_body_count

    def get_actor_rigid_body_count(self, env: list, actor: int) -> int:
        return len(env[actor][1].links)

    def get_asset_dof_count(self, asset: Asset) -> int:
        return len(asset.dofs)

    def get_asset_actuator_count(self, asset: Asset) -> int:
        return len(asset.actuated)

    def get_asset_actuator_joint_name(self, asset: Asset, index: int) -> str:
        return asset.actuated[index]

    def get_asset_tendon_count(self, asset: Asset) -> int:
        return len(asset.tendons)

    def get_asset_tendon_name(self, asset: Asset, index: int) -> str:
        return asset.tendons[index]

    def get_asset_tendon_properties(self, asset: Asset) -> list[SimpleNamespace]:
        return [SimpleNamespace() for _ in asset.tendons]

    def find_asset_dof_index(self, asset: Asset, name: str) -> int:
        return asset.dofs.index(name)

    def find_asset_rigid_body_index(self, asset: Asset, name: str) -> int:
        return [link.name for link in asset.links].index(name)

    def get_asset_dof_properties(self, asset: Asset) -> np.ndarray:
        names = ("hasLimits", "lower", "upper", "driveMode", "velocity", "effort", "stiffness", "damping", "friction",
                 "armature")  # fmt: skip
        properties = np.zeros(len(asset.dofs), dtype=[(name, "f4") for name in names])
        properties["lower"], properties["upper"] = asset.lower, asset.upper
        return properties

    def get_actor_dof_properties(self, env: list, actor: int) -> np.ndarray:
        return self.get_asset_dof_properties(env[actor][1])

    def get_actor_rigid_shape_properties(self, env: list, actor: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(friction=1.0) for _ in env[actor][1].links]

    def get_sim_dof_count(self, sim: Any) -> int:
        return len(self.envs) * self._dofs

    @property
    def _dofs(self) -> int:
        return sum(len(asset.dofs) for _, asset, _ in self.envs[0])

    def acquire_actor_root_state_tensor(self, sim: Any) -> Tensor:
        """(E * actors, 13), at the poses that actors were created at."""
        rows = [[p.x, p.y, p.z, r.x, r.y, r.z, r.w] for env in self.envs for *_, at in env for p, r in [(at.p, at.r)]]
        self.root_state = torch.cat([torch.tensor(rows), torch.zeros(len(rows), 6)], 1)
        return self.root_state

    def acquire_dof_state_tensor(self, sim: Any) -> Tensor:
        self.dof_state = torch.zeros(len(self.envs) * self._dofs, 2)
        return self.dof_state

    def acquire_rigid_body_state_tensor(self, sim: Any) -> Tensor:
        links = sum(len(asset.links) for _, asset, _ in self.envs[0])
        self.body_state = torch.zeros(len(self.envs) * links, 13)
        return self.body_state

    def acquire_force_sensor_tensor(self, sim: Any) -> Tensor:
        self.force_sensor = torch.zeros(len(self.envs), 60)
        return self.force_sensor

    def acquire_dof_force_tensor(self, sim: Any) -> Tensor:
        self.dof_force = torch.zeros(len(self.envs), self._dofs)
        return self.dof_force


# What the benchmark's functions call.


def quat_mul(a: Tensor, b: Tensor) -> Tensor:
    u, v, s, t = a[..., :3], b[..., :3], a[..., 3:], b[..., 3:]
    return torch.cat([s * v + t * u + torch.cross(u, v, dim=-1), s * t - (u * v).sum(-1, keepdim=True)], -1)


def quat_conjugate(a: Tensor) -> Tensor:
    return torch.cat([-a[..., :3], a[..., 3:]], -1)


def quat_apply(a: Tensor, b: Tensor) -> Tensor:
    turn = 2.0 * torch.cross(a[..., :3], b, dim=-1)
    return b + a[..., 3:] * turn + torch.cross(a[..., :3], turn, dim=-1)


def quat_rotate(a: Tensor, b: Tensor) -> Tensor:
    return quat_apply(a, b)


def quat_rotate_inverse(a: Tensor, b: Tensor) -> Tensor:
    return quat_apply(quat_conjugate(a), b)


def quat_unit(a: Tensor) -> Tensor:
    return a / a.norm(dim=-1, keepdim=True)


def normalize(x: Tensor, eps: float = 1e-9) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp(min=eps)


def quat_from_angle_axis(angle: Tensor, axis: Tensor) -> Tensor:
    half = (0.5 * angle).unsqueeze(-1)
    return quat_unit(torch.cat([normalize(axis) * half.sin(), half.cos()], -1))


def quat_from_euler_xyz(roll: Tensor, pitch: Tensor, yaw: Tensor) -> Tensor:
    x, y, z = (torch.eye(3, device=roll.device)[i].expand(roll.shape[0], 3) for i in range(3))
    turns = [quat_from_angle_axis(angle, axis) for angle, axis in ((yaw, z), (pitch, y), (roll, x))]
    return quat_mul(quat_mul(turns[0], turns[1]), turns[2])


def get_euler_xyz(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, y, z, w = q[:, 0], q[:, 1], q[:, 2], q[:, 3]
    roll = torch.atan2(2.0 * (w * x + y * z), w * w - x * x - y * y + z * z)
    pitch = torch.asin((2.0 * (w * y - z * x)).clamp(-1.0, 1.0))
    yaw = torch.atan2(2.0 * (w * z + x * y), w * w + x * x - y * y - z * z)
    return roll % 6.283185307179586, pitch % 6.283185307179586, yaw % 6.283185307179586


def get_basis_vector(q: Tensor, v: Tensor) -> Tensor:
    return quat_apply(q, v)


def tensor_clamp(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.max(torch.min(x, high), low)


def scale(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return 0.5 * (x + 1.0) * (high - low) + low


def unscale(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return (2.0 * x - high - low) / (high - low)


def normalize_angle(x: Tensor) -> Tensor:
    return torch.atan2(x.sin(), x.cos())


def to_torch(x: Any, dtype: torch.dtype = torch.float, device: str = "cpu", requires_grad: bool = False) -> Tensor:
    return torch.as_tensor(x, dtype=dtype, device=device)


def torch_rand_float(low: float, high: float, shape: tuple[int, int], device: str) -> Tensor:
    return (high - low) * torch.rand(*shape, device=device) + low


def get_axis_params(value: float, axis: int, x: float = 0.0, dtype: type = float, n: int = 3) -> list[float]:
    return [value if i == axis else x if i == 0 else 0.0 for i in range(n)]


_UTILITIES = (quat_mul, quat_conjugate, quat_apply, quat_rotate, quat_rotate_inverse, quat_unit, normalize,
              quat_from_angle_axis, quat_from_euler_xyz, get_euler_xyz, get_basis_vector, tensor_clamp, scale, unscale,
              normalize_angle, to_torch, torch_rand_float, get_axis_params)  # fmt: skip
_OF_RANDOMISATION = ("get_property_setter_map", "get_property_getter_map", "get_default_setter_args",
                     "apply_random_samples", "check_buckets", "generate_random_samples")  # fmt: skip


class _Options(SimpleNamespace):
    collapse_fixed_joints = False


def modules() -> dict[str, ModuleType]:
    """``isaacgym`` and its parts, for ``sys.modules``; the last simulation is ``gymapi.gym``."""
    gymapi = ModuleType("isaacgym.gymapi")

    def acquire_gym() -> Gym:
        gymapi.gym = Gym()  # type: ignore[attr-defined]
        return gymapi.gym  # type: ignore[attr-defined]

    names = ("SIM_PHYSX", "UP_AXIS_Z", "DOMAIN_SIM", "MESH_VISUAL", "MESH_VISUAL_AND_COLLISION", "ENV_SPACE",
             "DOF_MODE_NONE", "COMPUTE_PER_VERTEX", "IMAGE_DEPTH", "IMAGE_COLOR")  # fmt: skip
    vars(gymapi).update(dict.fromkeys(names, 0), Vec3=Vec3, Quat=Quat, Transform=Transform, acquire_gym=acquire_gym)
    vars(gymapi).update(AssetOptions=_Options, PlaneParams=SimpleNamespace, CameraProperties=SimpleNamespace)
    gymapi.VhacdParams = SimpleNamespace  # type: ignore[attr-defined]
    gymtorch, gymutil = ModuleType("isaacgym.gymtorch"), ModuleType("isaacgym.gymutil")
    vars(gymtorch).update(wrap_tensor=lambda x: x, unwrap_tensor=lambda x: x)
    vars(gymutil).update(dict.fromkeys(_OF_RANDOMISATION))
    utilities = ModuleType("isaacgym.torch_utils")
    vars(utilities).update({function.__name__: function for function in _UTILITIES}, np=np)
    package = ModuleType("isaacgym")
    parts = {"gymapi": gymapi, "gymtorch": gymtorch, "gymutil": gymutil, "torch_utils": utilities}
    vars(package).update(parts)
    pictures = {"matplotlib": ModuleType("matplotlib"), "matplotlib.pyplot": ModuleType("matplotlib.pyplot")}
    pictures["matplotlib.pyplot"].axis = None  # type: ignore[attr-defined]
    bare = ModuleType("bidexhands")  # whose own __init__ imports every learner
    return {"isaacgym": package, "bidexhands": bare, **pictures, **{f"isaacgym.{n}": m for n, m in parts.items()}}


def build(folder: Path, task: str, num_envs: int) -> Any:
    """The benchmark's own class ``task`` from the copy in ``folder``, with ``num_envs`` environments; its ``gym`` has
    the tensors."""
    import importlib
    import re

    import yaml

    source = folder / "bidexhands"
    sys.modules["bidexhands"].__path__ = [str(source)]
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", task).lower().replace("over2_underarm", "over2underarm")
    cls = getattr(importlib.import_module(f"bidexhands.tasks.{words}"), task)
    cfg = yaml.safe_load((source / "cfg" / f"{task}.yaml").read_text())
    cfg["env"] |= {"numEnvs": num_envs, "observationType": "full_state"}
    cfg["env"].setdefault("asset", {})["assetRoot"] = str(folder / "assets")
    params = SimpleNamespace(dt=1.0 / 60.0, up_axis=0, gravity=Vec3())
    return cls(cfg, params, 0, "cpu", 0, True)
