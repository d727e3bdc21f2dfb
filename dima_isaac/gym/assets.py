"""Assets: MJCF and URDF files, boxes, spheres and capsules, as MJCF text whose every part has a name.

Of an MJCF file Isaac Gym's importer reads bodies, joints, shapes, inertias, drives, fixed tendons and contact pairs;
the rest (options, sensors, materials, keyframes) is dropped, so that a file may refer to what it does not have.
Joints, links and tendons keep MuJoCo's order, depth first.
"""

import xml.etree.ElementTree as ET
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np

from dima_isaac.errors import UsageError
from dima_isaac.gym.structs import (
    DOF_PROPERTIES,
    ActuatorProperties,
    AssetOptions,
    DofDriveMode,
    TendonProperties,
    Transform,
)
from dima_isaac.sim.mjcf import load_asset_model, subtree
from dima_isaac.sim.scene import Mjcf

_IGNORED = {"option", "size", "visual", "statistic", "sensor", "keyframe", "custom", "equality", "texture", "material"}
_OF_WORLD = {"light", "camera"}
_ACTUATORS = {"general", "motor", "position", "velocity"}
_UNLIMITED = 3.4e38  # Isaac Gym's float maximum, for limits that a file does not give
_TINY = 1e-4  # kg and kg m^2 of a link without shape or inertia


@dataclass
class Asset:
    """What actors are made of. ``model`` is the asset by itself, of which ``root`` and what follows are the links."""

    tree: ET.Element
    options: AssetOptions
    model: mujoco.MjModel = field(init=False)
    links: list[str] = field(init=False)
    shapes: list[int] = field(init=False)  # ids of geoms that collide
    dofs: list[str] = field(init=False)
    drives: list[tuple[str, ActuatorProperties]] = field(init=False)  # joint and properties, in the file's order
    tendons: list[str] = field(init=False)
    tendon_properties: list[TendonProperties] = field(init=False)
    sensors: list[tuple[int, Transform]] = field(default_factory=list)  # link and pose of every force sensor

    def __post_init__(self) -> None:
        self.options = deepcopy(self.options)  # the caller may change them for the next asset
        self.model, root = load_asset_model(Mjcf(xml=self.text))
        model = self.model
        self.links = [model.body(body).name for body in subtree(model, root)]
        pairs = {*model.pair_geom1.tolist(), *model.pair_geom2.tolist()}
        self.shapes = [
            g for g in range(model.ngeom) if model.geom_contype[g] or model.geom_conaffinity[g] or g in pairs
        ]
        kinds = model.jnt_type
        if any(kind == mujoco.mjtJoint.mjJNT_BALL for kind in kinds):
            raise UsageError("ball joints have no degrees of freedom in Isaac Gym; use three hinges")
        self.joints = np.flatnonzero(kinds != mujoco.mjtJoint.mjJNT_FREE)
        self.slides = [bool(kinds[j] == mujoco.mjtJoint.mjJNT_SLIDE) for j in self.joints]
        self.dofs = [model.joint(j).name for j in self.joints]
        self.drives = [self._drive(u) for u in range(model.nu) if model.actuator_trnid[u, 0] in self.joints]
        self.tendons = [model.tendon(t).name for t in range(model.ntendon)]
        self.tendon_properties = [
            TendonProperties(
                fixed_lower_limit=float(model.tendon_range[t, 0]),
                fixed_upper_limit=float(model.tendon_range[t, 1]),
                is_fixed_limited=bool(model.tendon_limited[t]),
                num_joints=int(model.tendon_num[t]),
            )
            for t in range(model.ntendon)
        ]

    @property
    def text(self) -> str:
        """The asset as MJCF."""
        return ET.tostring(self.tree, encoding="unicode")

    def _drive(self, u: int) -> tuple[str, ActuatorProperties]:
        model = self.model
        position = model.actuator_biastype[u] == mujoco.mjtBias.mjBIAS_AFFINE
        properties = ActuatorProperties(
            kp=float(model.actuator_gainprm[u, 0]) if position else 0.0,
            kv=float(-model.actuator_biasprm[u, 2]),
            motor_effort=0.0 if position else float(model.actuator_gainprm[u, 0] * model.actuator_gear[u, 0]),
            control_limited=bool(model.actuator_ctrllimited[u]),
            force_limited=bool(model.actuator_forcelimited[u]),
        )
        properties.lower_control_limit, properties.upper_control_limit = model.actuator_ctrlrange[u].tolist()
        properties.lower_force_limit, properties.upper_force_limit = model.actuator_forcerange[u].tolist()
        return model.joint(int(model.actuator_trnid[u, 0])).name, properties

    def dof_properties(self) -> np.ndarray:
        """Isaac Gym's structured array (dofs,): limits, and the drives that position actuators describe."""
        model, joints, dof = self.model, self.joints, self.model.jnt_dofadr[self.joints]
        out = np.zeros(len(joints), dtype=DOF_PROPERTIES)
        limited = model.jnt_limited[joints].astype(bool)
        out["hasLimits"] = limited
        out["lower"] = np.where(limited, model.jnt_range[joints, 0], -_UNLIMITED)
        out["upper"] = np.where(limited, model.jnt_range[joints, 1], _UNLIMITED)
        out["driveMode"] = self.options.default_dof_drive_mode
        bounded = model.jnt_actfrclimited[joints].astype(bool)
        out["effort"] = np.where(bounded, model.jnt_actfrcrange[joints, 1], _UNLIMITED)
        out["velocity"] = _UNLIMITED
        out["damping"], out["friction"] = model.dof_damping[dof], model.dof_frictionloss[dof]
        out["armature"] = model.dof_armature[dof] + self.options.armature
        for joint, drive in self.drives:
            if drive.kp:
                row = out[self.dofs.index(joint)]
                row["driveMode"], row["stiffness"] = DofDriveMode.DOF_MODE_POS, drive.kp
                row["damping"] += drive.kv
                row["effort"] = drive.upper_force_limit if drive.force_limited else _UNLIMITED
        return out

    def masses(self) -> list[float]:
        """Of every link (kg)."""
        return [float(self.model.body(link).mass[0]) for link in self.links]

    def friction(self) -> list[float]:
        """Of every shape."""
        return [float(self.model.geom_friction[g, 0]) for g in self.shapes]

    def driven(self, properties: np.ndarray, collides: bool) -> str:
        """The asset as MJCF with the joints and drives of ``properties`` (dofs,): an actuator for every position and
        velocity drive, in the order of the dofs. Without ``collides`` no two of its links touch.

        Damping acts on the joint, beside the drive's effort limit, as in our own hands; a velocity drive's is its gain.
        """
        tree = deepcopy(self.tree)
        for section in tree.findall("actuator"):
            tree.remove(section)
        for defaults in tree.iter("default"):
            for node in [node for node in defaults if node.tag in _ACTUATORS]:
                defaults.remove(node)
        actuators = ET.SubElement(tree, "actuator")
        compiler = tree.find("compiler")
        degrees = compiler is None or compiler.get("angle", "degree") == "degree"
        nodes = {node.get("name"): node for node in tree.iter("joint") if node.get("joint") is None}
        declared = self.dof_properties()
        for i, (name, row, own) in enumerate(zip(self.dofs, properties, declared, strict=True)):
            node, mode = nodes[name], int(row["driveMode"])
            by_speed = mode == DofDriveMode.DOF_MODE_VEL
            for key in [key for key in node.attrib if key.startswith("actuatorfrc")]:
                del node.attrib[key]
            node.set("damping", repr(0.0 if by_speed else float(row["damping"])))
            node.set("frictionloss", repr(float(row["friction"])))
            node.set("armature", repr(float(row["armature"])))
            limits = [row["hasLimits"], row["lower"], row["upper"]]
            if limits != [own["hasLimits"], own["lower"], own["upper"]]:
                unit = np.rad2deg(1.0) if degrees and not self.slides[i] else 1.0
                node.set("limited", "true" if row["hasLimits"] else "false")
                node.set("range", f"{float(row['lower']) * unit!r} {float(row['upper']) * unit!r}")
            if by_speed or mode == DofDriveMode.DOF_MODE_POS:
                gain = repr(float(row["damping" if by_speed else "stiffness"]))
                drive = ET.SubElement(
                    actuators, "velocity" if by_speed else "position", joint=name, name=f"drive {name}"
                )
                drive.set("kv" if by_speed else "kp", gain)
                drive.set("ctrllimited", "false")
                if row["effort"] < 1e30:
                    drive.set("forcerange", f"{-float(row['effort'])!r} {float(row['effort'])!r}")
        if not collides:
            for section in tree.findall("contact"):
                tree.remove(section)
            colliding = {self.model.geom(g).name for g in self.shapes}
            for node in tree.iter("geom"):
                if node.get("name") in colliding:
                    node.set("contype", "1")
                    node.set("conaffinity", "0")
        return ET.tostring(tree, encoding="unicode")


def load(path: Path, options: AssetOptions) -> Asset:
    """Read an MJCF or URDF file.

    Raises:
        UsageError: it is not there, is neither, or MuJoCo cannot read it.
    """
    if not path.is_file():
        raise UsageError(f"there is no asset {path.absolute()}")
    try:
        tree = _spliced(ET.parse(path).getroot(), path.parent)
    except ET.ParseError as error:
        raise UsageError(f"{path} is not XML: {error}") from error
    if tree.tag == "robot":
        tree = _from_urdf(tree, path, bool(options.collapse_fixed_joints))
    elif tree.tag != "mujoco":
        raise UsageError(f"{path} is neither MJCF nor URDF: its first element is <{tree.tag}>")
    else:
        compiler = tree.find("compiler")
        compiler = ET.SubElement(tree, "compiler") if compiler is None else compiler
        for key in ("meshdir", "assetdir"):
            if key in compiler.attrib or key == "meshdir":
                compiler.set(key, str((path.parent / compiler.get(key, "")).resolve()))
        if "assetdir" in compiler.attrib:
            compiler.set("meshdir", compiler.attrib.pop("assetdir"))
        compiler.attrib.pop("texturedir", None)
        compiler.attrib.pop("coordinate", None)
    return Asset(_plain(tree, float(options.density)), options)


def primitive(kind: str, size: list[float], options: AssetOptions) -> Asset:
    """A single link: a box of full extents, a sphere of a radius, or a capsule of radius and length along x."""
    tree = ET.Element("mujoco")
    body = ET.SubElement(ET.SubElement(tree, "worldbody"), "body", name=kind)
    shape = ET.SubElement(body, "geom", type=kind, condim="4")
    if kind == "box":
        size = [max(0.5 * extent, _TINY) for extent in size]  # programs hide a table by giving it no height
    elif kind == "capsule":
        size = [size[0], 0.5 * size[1]]
        shape.set("quat", "1 0 1 0")  # MuJoCo's is along z
    shape.set("size", " ".join(map(repr, size)))
    return Asset(_plain(tree, float(options.density)), options)


def _spliced(node: ET.Element, folder: Path) -> ET.Element:
    """``node`` with the children of the files that it includes in their places."""
    for child in list(node):
        if child.tag != "include":
            _spliced(child, folder)
            continue
        place = list(node).index(child)
        node.remove(child)
        included = _spliced(ET.parse(folder / str(child.get("file"))).getroot(), folder)
        for offset, element in enumerate(included):
            node.insert(place + offset, element)
    return node


def _plain(tree: ET.Element, density: float) -> ET.Element:
    """Drop what the importer does not read, name what has no name, and set the density where the file has none."""
    for parent in list(tree.iter()):
        for child in list(parent):
            if child.tag in _OF_WORLD or (child.tag in _IGNORED and parent.tag in ("mujoco", "asset", "default")):
                parent.remove(child)
        parent.attrib.pop("material", None)
    counts: dict[str, int] = {}
    for body in tree.iter("body"):
        for node in (body, *(part for part in body if part.tag in ("joint", "freejoint", "geom"))):
            counts[node.tag] = counts.get(node.tag, -1) + 1
            node.attrib.setdefault("name", f"unnamed {node.tag} {counts[node.tag]}")
    for tendons in tree.findall("tendon"):
        for i, node in enumerate(tendons):
            node.attrib.setdefault("name", f"tendon{i}")
    default = tree.find("default")
    if default is None:
        default = ET.Element("default")
        tree.insert(0, default)
    shape = default.find("geom")
    shape = ET.SubElement(default, "geom") if shape is None else shape
    shape.attrib.setdefault("density", repr(density))
    return tree


def _from_urdf(robot: ET.Element, path: Path, collapse: bool) -> ET.Element:
    """A URDF as MJCF, by MuJoCo's reader. A link's mass without inertia is spread over its shapes."""
    masses: dict[str, float] = {}
    for link in robot.findall("link"):
        for visual in link.findall("visual"):
            link.remove(visual)
        inertial = link.find("inertial")
        if inertial is not None and inertial.find("inertia") is None:
            link.remove(inertial)
            mass = inertial.find("mass")
            if mass is not None:
                masses[str(link.get("name"))] = float(mass.get("value", 0.0))
        for collision in link.findall("collision"):
            for mesh in collision.iter("mesh"):
                name = str(mesh.get("filename"))
                mesh.set("filename", name.removeprefix("package://").partition("/")[2] if "://" in name else name)
                if _flat(path.parent / mesh.get("filename", "")):
                    link.remove(collision)
    reading = {"meshdir": str(path.parent.resolve()), "strippath": "false", "fusestatic": "false"}
    for extension in robot.findall("mujoco"):
        robot.remove(extension)
    ET.SubElement(ET.SubElement(robot, "mujoco"), "compiler", {"balanceinertia": "true", **reading})
    try:
        spec = mujoco.MjSpec.from_string(ET.tostring(robot, encoding="unicode"))
        root = spec.worldbody.first_body()
        if root is None:
            raise UsageError(f"{path} has no link")
        root.add_freejoint()  # without it, the root would be taken for a part of the world
        for body in spec.bodies:
            if body.name != "world" and not body.explicitinertial and not body.geoms:
                body.explicitinertial, body.mass, body.inertia = True, masses.get(body.name, _TINY), [_TINY] * 3
                body.ipos = [0.0, 0.0, 0.0]  # without it, the text has no inertia
        model = spec.compile()
        for body in spec.bodies:
            if body.name in masses and model.body(body.name).mass[0]:
                for geom in body.geoms:
                    geom.density *= masses[body.name] / model.body(body.name).mass[0]
        spec.compiler.fusestatic = collapse
        spec.compile()
    except ValueError as error:
        raise UsageError(f"MuJoCo cannot read {path}: {error}") from error
    return ET.fromstring(spec.to_xml())


def _flat(file: Path) -> bool:
    """Whether an OBJ file's points lie in one plane, so that they have no convex hull to collide with."""
    if file.suffix.lower() != ".obj" or not file.is_file():
        return False
    lines = (line.split() for line in file.read_text().splitlines() if line.startswith("v "))
    points = np.array([[float(number) for number in words[1:4]] for words in lines])
    return bool(np.linalg.matrix_rank(points - points.mean(0), tol=1e-6) < 3)
