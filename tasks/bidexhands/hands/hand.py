"""The Shadow hand of the benchmark, taken from the gymnasium-robotics wheel (Apache-2.0 assets, MIT package).

The wheel's files name everything ``robot0:``; the text returned here has plain names, so that one asset serves
any number of hands. Nothing is imported from the wheel: its package is slow to import and registers environments.
"""

import importlib.util
import xml.etree.ElementTree as ET
from functools import lru_cache
from pathlib import Path

from dima_isaac.errors import UsageError
from dima_isaac.sim.scene import Mjcf

JOINTS = (
    *("WRJ1", "WRJ0"),
    *(f"{finger}J{i}" for finger in ("FF", "MF", "RF") for i in (3, 2, 1, 0)),
    *(f"LFJ{i}" for i in (4, 3, 2, 1, 0)),
    *(f"THJ{i}" for i in (4, 3, 2, 1, 0)),
)
"""The 24 joints in the benchmark's order."""

ACTUATED = tuple(name for name in JOINTS if name not in ("FFJ0", "MFJ0", "RFJ0", "LFJ0"))
"""The 20 driven joints: the four distal ones follow their neighbour through a tendon."""

PARTS = (
    ("WRJ1", "WRJ0"),
    ("FFJ3", "FFJ2", "FFJ1"),
    ("MFJ3", "MFJ2", "MFJ1"),
    ("RFJ3", "RFJ2", "RFJ1"),
    ("LFJ4", "LFJ3", "LFJ2", "LFJ1"),
    ("THJ4", "THJ3", "THJ2", "THJ1", "THJ0"),
)
"""The driven joints of the benchmark's six parts of a hand: wrist and palm, then ff, mf, rf, lf and th."""

TIPS = ("ffdistal", "mfdistal", "rfdistal", "lfdistal", "thdistal")
PALM = "palm"
FOREARM = "forearm"
COUPLINGS = ("T_FFJ1c", "T_MFJ1c", "T_RFJ1c", "T_LFJ1c")


_MATERIALS = {  # name: colour, its meshes; of pictures only
    "shell": ("0.17 0.18 0.19 1", ("forearm",)),
    "body": ("0.26 0.27 0.29 1", ("palm", "lfmetacarpal", "F3", "F2", "TH3_z", "TH2_z")),
    "metal": ("0.74 0.75 0.77 1", ("wrist", "knuckle")),
    "rubber": ("0.88 0.86 0.81 1", ("F1", "TH1_z")),
}


@lru_cache(maxsize=2)
def shadow_hand(mirrored: bool = False) -> Mjcf:
    """The right hand, or its mirror image: 24 joints, 20 position drives, four distal couplings, no sensors.

    Joint friction is dropped: 0.001 N m on each of 48 joints moves nothing one can see and costs the solver a fifth
    of its time, because every one of those rows is always active.

    Raises:
        UsageError: gymnasium-robotics is not installed.
    """
    folder = _assets()
    hand = folder / "hand"
    model = ET.Element("mujoco", model="shadow_hand")
    ET.SubElement(model, "compiler", angle="radian", meshdir=str(folder / "stls" / "hand"))
    shared = ET.parse(hand / "shared.xml").getroot()
    model.extend(part for part in shared if part.tag in ("default", "contact", "tendon", "actuator"))
    assets = ET.parse(hand / "shared_asset.xml").getroot()
    kept = ET.SubElement(model, "asset")
    defaults = ("robot0:MatColl", "robot0:MatViz")
    kept.extend(part for part in assets if part.tag == "mesh" or part.get("name") in defaults)
    for material, (colour, _) in _MATERIALS.items():
        ET.SubElement(kept, "material", name=material, rgba=colour, specular="0.4", shininess="0.4")
    of_mesh = {f"robot0:{mesh}": material for material, (_, meshes) in _MATERIALS.items() for mesh in meshes}
    ET.SubElement(model, "worldbody").extend(ET.parse(hand / "robot.xml").getroot())
    for tendons in model.iter("tendon"):
        for tendon in list(tendons):
            if tendon.get("name", "").removeprefix("robot0:") not in COUPLINGS:
                tendons.remove(tendon)
    for node in model.iter():
        node.attrib.pop("user", None)
        node.attrib.pop("frictionloss", None)
        if node.tag == "geom" and node.get("name") in ("robot0:V_thbase", "robot0:V_thhub"):
            # millimetre markers of the thumb's axes; without these masks they would be colliders inside the palm
            node.attrib.update(contype="0", conaffinity="0")
        if node.tag == "geom" and node.get("mesh") in of_mesh:
            node.set("material", of_mesh[node.attrib["mesh"]])
    if mirrored:
        _mirror(model)
    text = ET.tostring(model, encoding="unicode").replace("robot0:", "")
    return Mjcf(xml=text)


_FLIPS = {
    "pos": (-1, 1, 1),
    "axis": (1, -1, -1),
    "euler": (1, -1, -1),
    "axisangle": (1, -1, -1, 1),
    "quat": (1, 1, -1, -1),
}
"""What a reflection of x does: to a point its x, to a turn its parts about y and z (to a joint's axis, too, so that
its angle, limits and drive keep their sense)."""


def _mirror(model: ET.Element) -> None:
    """Reflect x in every frame of ``model``."""
    for node in model.iter():
        for name in _FLIPS.keys() & node.keys():
            numbers = [float(number) for number in node.attrib[name].split()]
            node.set(name, " ".join(repr(sign * n) for sign, n in zip(_FLIPS[name], numbers, strict=True)))
        if node.tag == "mesh":
            x, rest = node.get("scale", "1 1 1").split(maxsplit=1)
            node.set("scale", f"-{x} {rest}")


def _assets() -> Path:
    found = importlib.util.find_spec("gymnasium_robotics")
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "the Shadow hand comes with gymnasium-robotics, which is missing: pip install gymnasium-robotics"
        )
    folder = Path(next(iter(found.submodule_search_locations))) / "envs" / "assets"
    if not (folder / "hand" / "robot.xml").is_file():
        raise UsageError(f"no Shadow hand in {folder}: pip install 'gymnasium-robotics>=1.4'")
    return folder
