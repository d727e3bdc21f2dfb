"""An actor's asset in the plain MJCF that Isaac Gym's importer of 2022 reads, written from MuJoCo's compiled model.

MuJoCo resolves defaults, Euler angles, meshes and inertias, so the text needs none of them: bodies with explicit
inertials, hinges and slides, primitive geoms, meshes as OBJ files, fixed tendons and contact pairs. Drives are not in
it; the engine sets them per degree of freedom.

The root's own rotation is moved into its geoms, inertia and children, because how the importer reads it is not
documented: afterwards the actor's pose and its root link's are the same. A root that is not fixed has a free joint,
because NVIDIA's open importer fixes one without.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from dima_isaac.errors import UsageError
from dima_isaac.sim.mjcf import load_asset_model, subtree
from dima_isaac.sim.scene import IDENTITY, Actor, Box, Mjcf, Quat

Array = np.ndarray
_SHAPES = {2: "sphere", 3: "capsule", 4: "ellipsoid", 5: "cylinder", 6: "box", 7: "mesh"}
_SIZES = {2: 1, 3: 2, 4: 3, 5: 2, 6: 3, 7: 0}  # how many of MuJoCo's three sizes a shape has
_ROOT_JOINT = "root"
_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)


@dataclass(frozen=True)
class GymAsset:
    """The files of an asset, and the names of its parts in them."""

    xml: str
    meshes: dict[str, str] = field(default_factory=dict)  # file name -> OBJ text
    root_quat: Quat = IDENTITY  # the rotation that the root link had
    links: tuple[str, ...] = ()  # the root first
    tendons: tuple[str, ...] = ()

    def write(self, folder: Path, name: str) -> str:
        """Write the files into ``folder``; returns the MJCF's name there."""
        for mesh, text in self.meshes.items():
            (folder / mesh).write_text(text)
        (folder / f"{name}.xml").write_text(self.xml)
        return f"{name}.xml"


def gym_asset(actor: Actor) -> GymAsset:
    """The asset of ``actor`` for Isaac Gym.

    Raises:
        UsageError: what MuJoCo cannot read, or the importer does not have: a joint on the root, a ball joint, an
            equality constraint, a spring.
    """
    asset = actor.asset
    if isinstance(asset, Mjcf):
        return _from_mjcf(asset, actor.fixed)
    root = ET.Element("mujoco", model=actor.name)
    ET.SubElement(root, "compiler", angle="radian")
    body = ET.SubElement(ET.SubElement(root, "worldbody"), "body", name=actor.name)
    if not actor.fixed:
        ET.SubElement(body, "freejoint", name=_ROOT_JOINT)
    if isinstance(asset, Box):
        shape, size = "box", [0.5 * extent for extent in asset.size]
    else:
        shape, size = ("sphere", [asset.radii[0]]) if len(set(asset.radii)) == 1 else ("ellipsoid", list(asset.radii))
    ET.SubElement(body, "geom", type=shape, size=_text(size), density=_text([asset.density]), rgba=_text(asset.color))
    return GymAsset(_pretty(root), links=(actor.name,))


@lru_cache(maxsize=16)
def _from_mjcf(asset: Mjcf, fixed: bool) -> GymAsset:
    model, root = load_asset_model(asset)
    _refuse(model, root, asset)
    links = subtree(model, root)
    rotation = model.body_quat[root]
    out = ET.Element("mujoco", model=model.body(root).name)
    ET.SubElement(out, "compiler", angle="radian")
    assets = ET.SubElement(out, "asset")
    nodes = {model.body_parentid[root]: ET.SubElement(out, "worldbody")}
    meshes: dict[str, str] = {}
    shapes: dict[int, str] = {}
    for b in links:
        parent = model.body_parentid[b]
        from_parent = rotation if parent == root else None
        pose = {} if b == root else _frame(model.body_pos[b], model.body_quat[b], from_parent)
        node = nodes[b] = ET.SubElement(nodes[parent], "body", name=model.body(b).name, **pose)
        if b == root and not fixed:
            ET.SubElement(node, "freejoint", name=_ROOT_JOINT)
        inside = rotation if b == root else None
        ET.SubElement(
            node,
            "inertial",
            mass=_text([model.body_mass[b]]),
            diaginertia=_text(model.body_inertia[b]),
            **_frame(model.body_ipos[b], model.body_iquat[b], inside),
        )
        for j in range(model.body_jntadr[b], model.body_jntadr[b] + model.body_jntnum[b]):
            _add_joint(node, model, j)
        for g in range(model.body_geomadr[b], model.body_geomadr[b] + model.body_geomnum[b]):
            shapes[g] = model.geom(g).name or f"geom{g}"
            _add_geom(node, model, g, shapes[g], inside)
            mesh = int(model.geom_dataid[g])
            if _SHAPES[int(model.geom_type[g])] == "mesh" and (name := f"{model.mesh(mesh).name}.obj") not in meshes:
                meshes[name] = _obj(model, mesh)
                ET.SubElement(assets, "mesh", name=model.mesh(mesh).name, file=name)
    tendons = _add_tendons(out, model)
    _add_pairs(out, model, shapes)
    return GymAsset(
        _pretty(out),
        meshes,
        (float(rotation[1]), float(rotation[2]), float(rotation[3]), float(rotation[0])),
        tuple(model.body(b).name for b in links),
        tendons,
    )


def _refuse(model: mujoco.MjModel, root: int, asset: Mjcf) -> None:
    def refuse(what: str) -> None:
        raise UsageError(f"Isaac Gym cannot take {what}, which the asset {asset.path or model.body(root).name} has")

    if model.body_jntnum[root]:
        refuse("a joint on an asset's first body")
    if any(kind not in (_HINGE, _SLIDE) for kind in model.jnt_type):
        refuse("joints other than hinges and slides")
    if model.neq:
        refuse("equality constraints")
    if np.any(model.jnt_stiffness):
        refuse("springs on joints")
    for kind in model.geom_type:
        if int(kind) not in _SHAPES:
            refuse("a plane or height field")


def _frame(pos: Array, quat: Array, rotation: Array | None) -> dict[str, Any]:
    """A pose in its parent; with ``rotation``, in a parent that no longer has this rotation."""
    pos, quat = np.array(pos, dtype=np.float64), np.array(quat, dtype=np.float64)
    if rotation is not None:
        moved, turned = np.zeros(3), np.zeros(4)
        mujoco.mju_rotVecQuat(moved, pos, rotation)
        mujoco.mju_mulQuat(turned, rotation, quat)
        pos, quat = moved, turned
    return {"pos": _text(pos), "quat": _text(quat)}


def _add_joint(node: ET.Element, model: mujoco.MjModel, j: int) -> None:
    dof = model.jnt_dofadr[j]
    ET.SubElement(
        node,
        "joint",
        name=model.joint(j).name,
        type="hinge" if model.jnt_type[j] == _HINGE else "slide",
        pos=_text(model.jnt_pos[j]),
        axis=_text(model.jnt_axis[j]),
        limited="true" if model.jnt_limited[j] else "false",
        range=_text(model.jnt_range[j]),
        damping=_text([model.dof_damping[dof]]),
        armature=_text([model.dof_armature[dof]]),
        frictionloss=_text([model.dof_frictionloss[dof]]),
    )


def _add_geom(node: ET.Element, model: mujoco.MjModel, g: int, name: str, rotation: Array | None) -> None:
    kind = int(model.geom_type[g])
    shape: dict[str, Any] = {"type": _SHAPES[kind]}
    if kind == int(mujoco.mjtGeom.mjGEOM_MESH):
        shape["mesh"] = model.mesh(int(model.geom_dataid[g])).name
    else:
        shape["size"] = _text(model.geom_size[g, : _SIZES[kind]])
    ET.SubElement(
        node,
        "geom",
        name=name,
        **shape,
        **_frame(model.geom_pos[g], model.geom_quat[g], rotation),
        contype=str(model.geom_contype[g]),
        conaffinity=str(model.geom_conaffinity[g]),
        condim=str(model.geom_condim[g]),
        friction=_text(model.geom_friction[g]),
        rgba=_text(model.geom_rgba[g]),
    )


def _add_tendons(out: ET.Element, model: mujoco.MjModel) -> tuple[str, ...]:
    """Fixed tendons: limited sums of joint angles."""
    if not model.ntendon:
        return ()
    tendons = ET.SubElement(out, "tendon")
    for t in range(model.ntendon):
        low, high = model.tendon_range[t]
        node = ET.SubElement(tendons, "fixed", name=model.tendon(t).name, limited="true", range=_text([low, high]))
        for w in range(model.tendon_adr[t], model.tendon_adr[t] + model.tendon_num[t]):
            joint = model.joint(int(model.wrap_objid[w])).name
            ET.SubElement(node, "joint", joint=joint, coef=_text([model.wrap_prm[w]]))
    return tuple(model.tendon(t).name for t in range(model.ntendon))


def _add_pairs(out: ET.Element, model: mujoco.MjModel, shapes: dict[int, str]) -> None:
    if not model.npair:
        return
    contact = ET.SubElement(out, "contact")
    for first, second in zip(model.pair_geom1, model.pair_geom2, strict=True):
        ET.SubElement(contact, "pair", geom1=shapes[int(first)], geom2=shapes[int(second)])


def _obj(model: mujoco.MjModel, mesh: int) -> str:
    start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    faces, triangles = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    lines = [f"v {_text(vertex)}" for vertex in model.mesh_vert[start : start + count]]
    lines += ["f " + " ".join(str(v + 1) for v in face) for face in model.mesh_face[faces : faces + triangles]]
    return "\n".join(lines) + "\n"


def _text(numbers: Iterable[float]) -> str:
    return " ".join(f"{float(number):.9g}" for number in numbers)


def _pretty(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")
