"""The benchmark's own meshes in place of the authored objects, from the user's copy of its assets.

They may not be redistributed, so nothing of them is here: ``assets_root`` names the folder that holds ``mjcf/``. The
URDFs' links keep their y-up axes below a fixed joint; every body made here has the axes of the base, as the authored
objects do, so that the tasks' points hold for either. A link's collision meshes are taken as their convex hulls, so a
kettle or a bucket whose file has one mesh for all of its wall is closed.
"""

import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dima_isaac.errors import UsageError
from dima_isaac.sim.rotations import from_rpy, quat_conj, quat_div, rotate
from dima_isaac.sim.scene import IDENTITY, Actor, Mjcf

DENSITY = 500.0  # kg/m^3 of links that have no inertial, as published
MOVING = ("revolute", "prismatic", "continuous")
COLLIDER = {"contype": "1", "conaffinity": "0", "condim": "4", "friction": "1 0.005 0.0001", "density": str(DENSITY)}
ORIGIN = torch.tensor(IDENTITY, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
LOOK = {"contype": "0", "conaffinity": "0", "group": "1", "mass": "0", "rgba": "0.7 0.7 0.72 1"}


@dataclass(frozen=True)
class Original:
    """An object of the benchmark, and what its moving links and joints, in the order of the file, are called here."""

    folder: str
    model: int  # its number in PartNet-Mobility
    bodies: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()

    def file(self, root: Path) -> Path:
        """Its URDF. Raises ``UsageError`` naming the places looked at."""
        places = [root / "mjcf" / self.folder / middle / "mobility.urdf" for middle in ("", str(self.model))]
        for place in places:
            if place.is_file():
                return place
        raise UsageError(
            f"assets_root={root} has neither {places[0]} nor {places[1]}; leave it empty for authored objects."
        )


ORIGINALS = {
    "door": Original("door", 9128, ("right", "left"), ("right_hinge", "left_hinge")),
    "bottle": Original("bottle_cap", 4064, ("cap",), ("cap_lift", "cap_turn")),
    "pot": Original("pot", 15, ("lid",), ("lid_lift",)),
    "mug": Original("cup", 8848, ("lid",), ("lid_lift",)),
    "scissors": Original("scissors", 10495, ("blade",), ("pivot",)),
    "pen": Original("pen", 2939, ("cap",), ("cap_slide",)),
    "kettle": Original("kettle", 1305, ("lid",), ("lid_lift",)),
    "bucket": Original("bucket", 100454),
    "switch": Original("switch", 102872, ("rocker",), ("rocker_hinge",)),
}
"""By the name of the authored file that each stands behind."""


def with_original(actor: Actor, root: str) -> Actor:
    """``actor`` with its authored object, if it is one, replaced by the original below ``root``.

    Raises:
        UsageError: a file is missing, or is not what the task expects.
    """
    authored = Path(actor.asset.path) if isinstance(actor.asset, Mjcf) else Path()
    if authored.stem not in ORIGINALS:
        return actor
    damping = {joint.get("name", ""): joint.get("damping", "0") for joint in ET.parse(authored).getroot().iter("joint")}
    path = ORIGINALS[authored.stem].file(Path(root).expanduser().absolute())
    try:
        robot = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise UsageError(f"{path} is not a URDF: {error}.") from error
    model = _Converter(authored.stem, path, robot, damping).model
    return replace(actor, asset=Mjcf(xml=ET.tostring(model, encoding="unicode")))


class _Converter:
    """A URDF as the MJCF ``model`` with our names: its tree is walked, every frame kept in the axes of its base."""

    def __init__(self, name: str, path: Path, robot: ET.Element, damping: dict[str, str]) -> None:
        """Joints take ``damping`` from the authored object."""
        original = self.original = ORIGINALS[name]
        self.path, self.damping = path, damping
        self.links = {link.get("name", ""): link for link in robot.iter("link")}
        self.joints: dict[str, list[ET.Element]] = {}
        children = set()
        for joint in robot.iter("joint"):
            self.joints.setdefault(_end(joint, "parent"), []).append(joint)
            children.add(_end(joint, "child"))
        self.bodies, self.names = list(original.bodies), list(original.joints)
        self.model = ET.Element("mujoco", model=name)
        ET.SubElement(self.model, "compiler", angle="radian")
        self.assets = ET.SubElement(self.model, "asset")
        body = ET.SubElement(ET.SubElement(self.model, "worldbody"), "body", name=name)
        for base in self.links.keys() - children:
            self._fill(body, base, *ORIGIN)
        if self.bodies or self.names:
            raise UsageError(f"{path} has no moving link for {', '.join([*self.bodies, *self.names])}.")

    def _fill(self, body: ET.Element, link: str, turn: Tensor, at: Tensor) -> None:
        """Add a link whose frame is ``turn``, ``at`` from the body's, and all that hangs on it."""
        element = self.links[link]
        self._inertial(body, element, turn, at)
        looks = element.findall("visual")
        for shape in looks:
            self._mesh(body, shape, turn, at, LOOK, "shell")
        for shape in element.findall("collision"):
            # hidden from pictures where there is something better to look at
            self._mesh(body, shape, turn, at, {**COLLIDER, "group": "3" if looks else "0"}, "convex")
        for joint in self.joints.get(link, []):
            step, offset = _frame(joint)
            place = at + rotate(turn, offset)
            if joint.get("type") not in MOVING:
                self._fill(body, _end(joint, "child"), _product(turn, step), place)
            else:
                self._hang(body, joint, _product(turn, step), place)

    def _hang(self, parent: ET.Element, joint: ET.Element, turn: Tensor, at: Tensor) -> None:
        """Add a moving link; one without a shape is only a step to the next, whose joint is added to its own."""
        if not self.bodies:
            raise self._too_many(joint)
        body = ET.SubElement(parent, "body", name=self.bodies.pop(0), pos=_numbers(at))
        self._joint(body, joint, turn)
        link = _end(joint, "child")
        while not self.links[link].findall("collision") and len(self.joints.get(link, [])) == 1:
            joint = self.joints[link][0]
            step, offset = _frame(joint)
            if joint.get("type") not in MOVING or bool(offset.abs().max() > 1e-9):
                break
            turn, link = _product(turn, step), _end(joint, "child")
            self._joint(body, joint, turn)
        self._fill(body, link, turn, ORIGIN[1])

    def _too_many(self, joint: ET.Element) -> UsageError:
        expected = ", ".join(self.original.joints) or "none"
        return UsageError(f"{self.path} has another moving joint, {joint.get('name')}, besides {expected}.")

    def _joint(self, body: ET.Element, joint: ET.Element, turn: Tensor) -> None:
        if not self.names:
            raise self._too_many(joint)
        name, kind = self.names.pop(0), joint.get("type")
        axis, limit = joint.find("axis"), joint.find("limit")
        along = _floats(axis.get("xyz") if axis is not None else None, (1.0, 0.0, 0.0))
        direction = torch.tensor(along, dtype=torch.float64)
        out = ET.SubElement(body, "joint", name=name, type="slide" if kind == "prismatic" else "hinge")
        out.set("axis", _numbers(rotate(turn, direction)))
        out.set("damping", self.damping.get(name, "0"))
        if kind != "continuous" and limit is not None:
            out.set("limited", "true")
            out.set("range", f"{limit.get('lower', '0')} {limit.get('upper', '0')}")
        if kind == "continuous":
            out.set("armature", "0.00001")  # about the axis of something thin there is next to no inertia

    def _mesh(
        self, body: ET.Element, shape: ET.Element, turn: Tensor, at: Tensor, look: dict[str, str], inertia: str
    ) -> None:
        mesh = shape.find("geometry/mesh")
        if mesh is None:
            raise UsageError(f"{self.path} has a shape that is no mesh; only meshes are expected.")
        file = self.path.parent / mesh.get("filename", "")
        if not file.is_file():
            raise UsageError(f"{self.path} needs {file}, which is missing.")
        name = f"mesh{len(self.assets)}"
        asset = ET.SubElement(self.assets, "mesh", name=name, file=str(file), inertia=inertia)
        asset.set("scale", mesh.get("scale", "1 1 1"))
        step, offset = _frame(shape)
        where = {"pos": _numbers(at + rotate(turn, offset)), "quat": _numbers(_product(turn, step)[[3, 0, 1, 2]])}
        ET.SubElement(body, "geom", {"type": "mesh", "mesh": name, **where, **look})

    def _inertial(self, body: ET.Element, link: ET.Element, turn: Tensor, at: Tensor) -> None:
        inertial = link.find("inertial")
        mass = inertial.find("mass") if inertial is not None else None
        inertia = inertial.find("inertia") if inertial is not None else None
        if inertial is None or mass is None or inertia is None:
            return
        step, offset = _frame(inertial)
        values = {key: float(inertia.get(key, "0")) for key in ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")}
        rows = ("ixx", "ixy", "ixz"), ("ixy", "iyy", "iyz"), ("ixz", "iyz", "izz")
        tensor = torch.tensor([[values[key] for key in row] for row in rows], dtype=torch.float64)
        axes = rotate(_product(turn, step), torch.eye(3, dtype=torch.float64))  # rows are the turned x, y and z
        whole = axes.T @ tensor @ axes
        out = ET.SubElement(body, "inertial", pos=_numbers(at + rotate(turn, offset)), mass=mass.get("value", "0"))
        out.set("fullinertia", _numbers(torch.cat([whole.diagonal(), whole[[0, 0, 1], [1, 2, 2]]])))


def _end(joint: ET.Element, end: str) -> str:
    found = joint.find(end)
    return found.get("link", "") if found is not None else ""


def _floats(text: str | None, default: tuple[float, ...] = (0.0, 0.0, 0.0)) -> tuple[float, ...]:
    return tuple(map(float, text.split())) if text else default


def _numbers(values: Tensor) -> str:
    return " ".join(f"{value:.9g}" for value in values.tolist())


def _product(a: Tensor, b: Tensor) -> Tensor:
    """First ``b``, then ``a``."""
    return quat_div(a, quat_conj(b))


def _frame(element: ET.Element) -> tuple[Tensor, Tensor]:
    """Rotation (4,) and translation (3,) of an element's ``origin``."""
    origin = element.find("origin")
    if origin is None:
        return ORIGIN
    roll, pitch, yaw = _floats(origin.get("rpy"))
    turn, offset = from_rpy(roll, pitch, yaw), _floats(origin.get("xyz"))
    return torch.tensor(turn, dtype=torch.float64), torch.tensor(offset, dtype=torch.float64)
