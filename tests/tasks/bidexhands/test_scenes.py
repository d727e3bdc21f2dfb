"""Where everything starts and what it is made of, against the benchmark's tables."""

from __future__ import annotations

import math
from collections.abc import Collection

import mujoco
import numpy as np
import pytest

from dima_isaac.sim.scene import Actor, Box, Ellipsoid, Mjcf
from dima_isaac.tasks.bidexhands.hands.props import ASSETS
from tests.tasks.bidexhands.stage import Stage
from tests.tasks.bidexhands.test_suite import START_POINTS, TASKS, partnet, rotation, task_of

NONE = (0.0, 0.0, 0.0)
BACK = (0.0, 0.0, math.pi)
DOWN = (3.14159, 0.0, 1.57)  # palm down, fingers toward -x
FACING = ((3.14159, 1.57, 1.57), (3.14159, -1.57, 1.57))
FLAT = (1.57, 1.57, 0.0)
TABLE_TOP = {"hand0": ((0.55, 0.2, 0.8), DOWN), "hand1": ((0.55, -0.2, 0.8), DOWN)}


def facing(x: float, y: float, z: float) -> dict:
    return {"hand0": ((x, y, z), FACING[0]), "hand1": ((x, -y, z), FACING[1])}


def underarm(far: float, z: float = 0.5, near: float = 0.0) -> dict:
    return {"hand0": ((0.0, near, z), NONE), "hand1": ((0.0, far, z), BACK)}


def door(turn: float) -> tuple:
    return ((0.0, 0.0, 0.7), (0.0, turn, 0.0))


SPAWN = {  # actor: position, roll pitch yaw; heights are the settled ones where things rest on something
    "ShadowHandOver": {**underarm(-1.0), "egg0": ((0, -0.39, 0.54), NONE), "goal0": ((0, -0.64, 0.54), NONE)},
    "ShadowHandCatchUnderarm": {**underarm(-1.15), "egg0": ((0, -0.39, 0.54), NONE), "goal0": ((0, -0.79, 0.54), NONE)},
    "ShadowHandTwoCatchUnderarm": {
        **underarm(-1.15),
        "egg0": ((0, -0.39, 0.54), NONE),
        "goal0": ((0, -0.79, 0.54), NONE),
        "egg1": ((0, -0.78, 0.54), NONE),
        "goal1": ((0, -0.38, 0.54), NONE),
    },
    "ShadowHandCatchAbreast": {
        "hand0": ((0, -0.55, 0.5), (0, 0.3925, -1.57)),
        "hand1": ((0, -1.15, 0.5), (0, -0.3925, -1.57)),
        "egg0": ((-0.39, -0.55, 0.54), NONE),
        "goal0": ((-0.39, -1.15, 0.54), NONE),
    },
    "ShadowHandCatchOver2Underarm": {
        "hand0": ((0, 0, 0.5), (1.67, 3.14, 0)),
        "hand1": ((0, -0.8, 0.5), BACK),
        "egg0": ((0, 0.05, 1.0), NONE),
        "goal0": ((0, -0.40, 0.55), NONE),
    },
    "ShadowHandReOrientation": {
        **underarm(-1.15),
        "cube0": ((0, -0.39, 0.60), NONE),
        "cube1": ((0, -0.76, 0.60), NONE),
        "goal0": ((0, -0.39, 0.56), NONE),
        "goal1": ((0, -0.76, 0.56), NONE),
    },
    "ShadowHandLiftUnderarm": {
        **underarm(-1.25, 0.45, 0.05),
        "pot": ((0, -0.6, 0.465), NONE),
        "goal": ((0, -0.6, 0.85), NONE),
        "table": ((0, -0.6, 0.2), NONE),
    },
    "ShadowHandDoorOpenInward": {**facing(0.55, 0.2, 0.6), "door": door(math.pi)},
    "ShadowHandDoorOpenOutward": {**facing(0.55, 0.2, 0.6), "door": door(0)},
    "ShadowHandDoorCloseInward": {**facing(0.9, 0.5, 0.6), "door": door(math.pi)},
    "ShadowHandDoorCloseOutward": {**facing(0.55, 0.2, 0.6), "door": door(0)},
    "ShadowHandBottleCap": {
        "hand0": ((0, -1.05, 0.5), (0.5, math.pi, math.pi)),
        "hand1": ((0, -0.25, 0.45), (0, 0.87, 0)),
        "bottle": ((0, -0.6, 0.5), (0, -0.7, 0)),
        "table": ((0, -0.6, 0.05), NONE),
    },
    "ShadowHandPushBlock": {
        **TABLE_TOP,
        "right": ((0, 0.2, 0.625), FLAT),
        "left": ((0, -0.2, 0.625), FLAT),
        "right_goal": ((-0.2, 0.2, 0.625), NONE),
        "left_goal": ((-0.2, -0.2, 0.625), NONE),
        "table": ((0, 0, 0.3), NONE),
    },
    "ShadowHandGraspAndPlace": {
        **TABLE_TOP,
        "bucket": ((0, 0.2, 0.653), NONE),
        "cube": ((0, -0.2, 0.625), FLAT),
        "table": ((0, 0, 0.3), NONE),
    },
    "ShadowHandSwingCup": {
        **facing(0.35, 0.2, 0.8),
        "mug": ((0, 0, 0.684), (0, 0, 1.57)),
        "table": ((0, 0, 0.3), NONE),
    },
    "ShadowHandScissors": {**TABLE_TOP, "scissors": ((0, 0, 0.606), (0, 0, 1.57)), "table": ((0, 0, 0.3), NONE)},
    "ShadowHandPen": {**TABLE_TOP, "pen": ((0, 0, 0.612), FLAT), "table": ((0, 0, 0.3), NONE)},
    "ShadowHandSwitch": {
        **TABLE_TOP,
        "right": ((0, 0.2, 0.65), (math.pi, 1.57, 0)),
        "left": ((0, -0.2, 0.65), (math.pi, 1.57, 0)),
        "table": ((0, 0, 0.275), NONE),
    },
    "ShadowHandKettle": {
        **facing(0.55, 0.2, 0.6),
        "kettle": ((0, 0, 0.474), (0, 0, 1.57)),
        "bucket": ((0, -0.3, 0.453), NONE),
        "table": ((0, 0, 0.2), NONE),
    },
    "ShadowHandBlockStack": {
        "hand0": ((0, 0.6, 0.7), (3.14159, 0, 3.14)),
        "hand1": ((0, -0.6, 0.7), (3.14159, 0, 0)),
        "right": ((0, 0.1, 0.625), FLAT),
        "left": ((0, -0.1, 0.625), FLAT),
        "right_goal": ((0, 0, 0.625), NONE),
        "left_goal": ((0, 0, 0.675), NONE),
        "table": ((0, 0, 0.3), NONE),
    },
}
TABLES = {
    "ShadowHandLiftUnderarm": (0.3, 0.3, 0.4),
    "ShadowHandBottleCap": (0.3, 0.3, 0.1),
    "ShadowHandPushBlock": (1.0, 1.0, 0.6),
    "ShadowHandGraspAndPlace": (1.0, 1.0, 0.6),
    "ShadowHandSwingCup": (0.3, 0.3, 0.6),
    "ShadowHandScissors": (0.5, 1.0, 0.6),
    "ShadowHandPen": (0.5, 1.0, 0.6),
    "ShadowHandSwitch": (0.5, 1.0, 0.55),
    "ShadowHandKettle": (0.5, 1.0, 0.4),
    "ShadowHandBlockStack": (0.5, 1.0, 0.6),
}
ASSET_MASKS = {  # tasks whose hands touch themselves only as their file says
    *("ShadowHandOver", "ShadowHandCatchUnderarm", "ShadowHandCatchOver2Underarm", "ShadowHandCatchAbreast"),
    *("ShadowHandTwoCatchUnderarm", "ShadowHandReOrientation", "ShadowHandPushBlock", "ShadowHandGraspAndPlace"),
    "ShadowHandKettle",
}
FRICTION = {  # what is not 1; the bottle's published 100 is 5 here
    "ShadowHandLiftUnderarm": {"pot": 3.0, "table": 3.0},
    "ShadowHandBottleCap": {"bottle": 5.0},
    "ShadowHandPushBlock": {"table": 0.5},
    "ShadowHandSwingCup": {"mug": 0.5},
    "ShadowHandBlockStack": {"hand0": 0.5, "hand1": 0.5, "right": 0.25, "left": 0.25, "table": 0.2},
    **{name: {"door": 0.1} for name in TASKS if "Door" in name},
}
DENSITY = {"ShadowHandBlockStack": 100.0}


def matrix(rpy: tuple[float, float, float]) -> np.ndarray:
    """Rz(yaw) Ry(pitch) Rx(roll)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return z @ y @ x


def actors(name: str) -> dict[str, Actor]:
    return {actor.name: actor for actor in task_of(name).scene().actors if not actor.name.startswith("ball")}


@pytest.mark.parametrize("name", TASKS)
def test_everything_starts_where_the_benchmark_has_it(name):
    found = actors(name)
    assert found.keys() == SPAWN[name].keys()
    for actor, (pos, rpy) in SPAWN[name].items():
        assert found[actor].pos == pytest.approx(pos, abs=1e-3), actor
        # the published angles are rounded: 3.14, 1.57
        assert np.allclose(rotation(np.array(found[actor].quat)), matrix(rpy), atol=2e-3), actor


@pytest.mark.parametrize("name", TASKS)
def test_bases_supports_contacts_and_frictions(name):
    found = actors(name)
    free = TASKS[name][2] == 26
    for hand in ("hand0", "hand1"):
        assert found[hand].fixed is not free and not found[hand].gravity
        assert found[hand].damping == ((100.0, 100.0) if free else (0.0, 0.0))
        assert found[hand].self_collision is (name not in ASSET_MASKS)
    if name in TABLES:
        table = found["table"]
        assert table.fixed and isinstance(table.asset, Box) and table.asset.size == TABLES[name]
        assert table.pos[2] == pytest.approx(table.asset.size[2] / 2)
    for actor in found.values():
        assert actor.friction == FRICTION.get(name, {}).get(actor.name, 1.0), actor.name
        assert actor.marker is ("goal" in actor.name)
        if not actor.name.startswith("hand"):
            switch = name == "ShadowHandSwitch" and actor.name in ("right", "left")
            assert actor.fixed is (switch or actor.name in ("table", "door"))
        if isinstance(actor.asset, Box) and actor.name != "table" and not actor.marker:
            assert actor.asset.size == (0.05, 0.05, 0.05) and actor.asset.density == DENSITY.get(name, 500.0)
        if isinstance(actor.asset, Ellipsoid) and actor.name.startswith("egg"):
            assert actor.asset.radii == (0.03, 0.03, 0.04) and actor.asset.density == 500.0


THUMBS = {"THJ4": -1.04, "THJ3": 1.2, "THJ0": -1.57}


@pytest.mark.parametrize("name", ["ShadowHandBottleCap", "ShadowHandPen"])
def test_hands_start_open_but_for_the_thumbs_at_the_bottle(name):
    stage = Stage(name)
    bent = THUMBS if name == "ShadowHandBottleCap" else {}
    for joint, angle in zip(stage.engine.dof_names, stage.engine.dof_pos[0].tolist(), strict=True):
        hand, _, label = joint.partition("/")
        if hand in ("hand0", "hand1"):
            assert angle == pytest.approx(bent.get(label, 0.0)), joint


# ---- F at the start, from the table of an open hand's points ---------------------------------------------------------

TIPS = np.array(  # ff, mf, rf, lf, th of a hand at the origin with all joints at 0
    [
        *((-0.033, -0.475, -0.010), (-0.011, -0.479, -0.010), (0.011, -0.475, -0.010)),
        *((0.034, -0.468, -0.010), (-0.0976, -0.3827, -0.001)),
    ]
)
POINTS = {
    **{name: points[:2] for name, points in START_POINTS.items() if name != "ShadowHandBottleCap"},  # bent thumbs
    "ShadowHandSwitch": ((0.0279, 0.2, 0.7023), (0.0279, -0.2, 0.7023)),  # 0.02 from the hinge, turned up by 0.5585
    "ShadowHandPushBlock": ((0, 0.2, 0.625), (0, -0.2, 0.625)),
    "ShadowHandGraspAndPlace": ((0, 0.2, 0.653), (0, -0.2, 0.625)),
    "ShadowHandBlockStack": ((0, 0.1, 0.625), (0, -0.1, 0.625)),
}


@pytest.mark.parametrize("name", sorted(POINTS))
def test_fingertips_start_as_far_from_their_points_as_the_tables_say(name):
    stage = Stage(name)
    points = stage.task.points()[:, :2]
    found = stage.task.reach(points)[0].tolist()
    for side in range(2):
        pos, rpy = SPAWN[name][f"hand{side}"]
        tips = np.array(pos) + TIPS @ matrix(rpy).T
        expected = np.linalg.norm(tips - np.array(POINTS[name][side]), axis=1).sum()
        assert found[side] == pytest.approx(expected, abs=7e-3), side


# ---- the authored objects: extents, masses, joints -------------------------------------------------------------------

EXTENTS = {  # axis: lowest and highest, in the object's frame (None: not published)
    "block": {"x": (-0.025, 0.025), "y": (-0.025, 0.025), "z": (-0.025, 0.025)},
    "door": {"y": (-0.88, 0.88), "z": (-0.446, 0.483)},
    "bottle": {"x": (-0.0385, 0.0385), "y": (-0.0385, 0.0385), "z": (-0.026, 0.150)},
    "pot": {"x": (-0.12, 0.12), "y": (-0.18, 0.18), "z": (-0.065, 0.068)},
    "mug": {"x": (-0.0877, 0.0877), "y": (-0.052, 0.052), "z": (-0.084, 0.069)},
    "pen": {"x": (-0.0115, 0.0115), "z": (-0.172, 0.200)},
    # published: up to 0.069; the walls of the spout, which keep balls in, stand above it
    "kettle": {"x": (-0.197, 0.170), "y": (-0.114, 0.114), "z": (-0.074, 0.084)},
    "bucket": {"x": (-0.057, 0.057), "y": (-0.057, 0.057), "z": (-0.053, 0.0445)},
    "switch": {"y": (-0.050, 0.052), "z": (-0.075, 0.077)},
}
PART_EXTENTS = {  # of one link, joints at 0; a leaf with the handles on both of its faces
    ("door", "right"): {"x": (-0.09, 0.09), "y": (0.0025, 0.4425), "z": (-0.442, 0.483)},
    ("door", "left"): {"x": (-0.09, 0.09), "y": (-0.4365, 0.0035), "z": (-0.442, 0.483)},
    ("bottle", "cap"): {"x": (-0.01285, 0.01285), "y": (-0.01285, 0.01285), "z": (0.139, 0.150)},
    ("pen", "pen"): {"x": (-0.0105, 0.0105), "y": (-0.0105, 0.0105), "z": (-0.159, 0.200)},
    ("pen", "cap"): {"x": (-0.0115, 0.0115), "y": (-0.0115, 0.0115), "z": (-0.172, -0.0405)},
    ("scissors", "scissors"): {"z": (-0.006, 0.006)},
    ("scissors", "blade"): {"z": (-0.006, 0.006)},
    ("switch", "switch"): {"x": (-0.043, 0.095)},
    ("switch", "rocker"): {"y": (-0.029, 0.031), "z": (-0.052, 0.049)},
}
PART_SIZES = {  # of one link along x and y, joints at 0, where only sizes are published
    ("scissors", "scissors"): {"x": 0.23, "y": 0.47},
    ("scissors", "blade"): {"x": 0.23, "y": 0.47},
}
MASSES = {
    "block": {"block": 0.125},
    "door": {"right": 4.2, "left": 4.2},
    "bottle": {"bottle": 0.4, "cap": 0.003},
    "pot": {"pot": 3.0, "lid": 1.0},
    "mug": {"mug": 1.0, "lid": 0.1},
    "scissors": {"scissors": 0.104, "blade": 0.104},
    "pen": {"pen": 0.05, "cap": 0.027},
    "kettle": {"kettle": 2.2, "lid": 0.3},
    "switch": {"rocker": 0.042},
}
JOINTS = {  # axis, limits, and where the axis passes in the object's frame (None: a slide)
    "right_hinge": ((0, 0, -1), (0.0, math.pi / 2), (0.0, 0.4265)),
    "left_hinge": ((0, 0, 1), (0.0, math.pi / 2), (0.0, -0.4204)),
    "cap_lift": ((0, 0, 1), (0.0, 0.064), None),
    "cap_turn": ((0, 0, 1), None, (0.0, 0.0)),
    "lid_lift": ((0, 0, 1), None, None),
    "pivot": ((0, 0, 1), (-0.597, 0.4), (-0.0034, 0.0698)),
    "cap_slide": ((0, 0, -1), (0.0, 0.492), None),
    "rocker_hinge": ((0, 1, 0), (0.0, 0.5585), (-0.0417, None, -0.0109)),
}
ORIGINS = {  # of links in their parent's y-up axes, as the benchmark's files have them: hinges, the cap, the mug's lid
    ("door", "right"): (-0.4265270657166128, 0.483292, 0.008461858680020029),
    ("door", "left"): (0.42040686074842226, 0.483292, 0.0055998888476049835),
    ("bottle", "cap"): (0.007005959241653967, 0.0, 0.007542109902568375),
    ("mug", "lid"): (-0.0013007224518146773, 0.0, -0.006225716369432219),
}
LIDS = {"pot": 0.06, "mug": 0.108, "kettle": 0.032}


def extent(model: mujoco.MjModel, data: mujoco.MjData, bodies: Collection[int]) -> dict[str, tuple[float, float]]:
    """The lowest and highest coordinates of what collides on ``bodies``."""
    corners = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1)
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for geom in range(model.ngeom):
        if not model.geom_contype[geom] or model.geom_bodyid[geom] not in bodies:
            continue
        box = model.geom_aabb[geom]
        reach = (box[:3, None] + box[3:, None] * corners).T @ data.geom_xmat[geom].reshape(3, 3).T
        reach += data.geom_xpos[geom]
        low, high = np.minimum(low, reach.min(0)), np.maximum(high, reach.max(0))
    return {axis: (float(low[k]), float(high[k])) for k, axis in enumerate("xyz")}


@pytest.mark.parametrize("name", sorted(path.stem for path in ASSETS.glob("*.xml") if path.stem != "block_goal"))
def test_authored_objects_have_the_published_extents_masses_and_joints(name):
    model = mujoco.MjModel.from_xml_path(str(ASSETS / f"{name}.xml"))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    whole = extent(model, data, range(1, model.nbody))
    for axis, ends in EXTENTS.get(name, {}).items():
        assert whole[axis] == pytest.approx(ends, abs=5e-3), axis
    for (owner, part), axes in PART_EXTENTS.items():
        if owner == name:
            found = extent(model, data, [model.body(part).id])
            assert {axis: found[axis] for axis in axes} == {
                axis: pytest.approx(ends, abs=3e-3) for axis, ends in axes.items()
            }, part
    for (owner, part), sizes in PART_SIZES.items():
        if owner == name:
            found = extent(model, data, [model.body(part).id])
            assert {axis: found[axis][1] - found[axis][0] for axis in sizes} == pytest.approx(sizes, abs=1e-2), part
    for body, mass in MASSES.get(name, {}).items():
        assert model.body(body).mass[0] == pytest.approx(mass)
    for joint in range(model.njnt):
        label = model.joint(joint).name
        axis, limits, place = JOINTS[label]
        limits = (0.0, LIDS[name]) if label == "lid_lift" else limits
        assert data.xaxis[joint].tolist() == pytest.approx(axis, abs=1e-6)
        assert bool(model.jnt_limited[joint]) is (limits is not None)
        if limits is not None:
            assert model.jnt_range[joint].tolist() == pytest.approx(limits, abs=1e-4)
        assert (model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE) is (place is None)
        for value, wanted in zip(data.xanchor[joint], place or (), strict=False):
            assert wanted is None or value == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize(("name", "link"), ORIGINS)
def test_link_origins_are_the_published_ones(name, link):
    model = mujoco.MjModel.from_xml_path(str(ASSETS / f"{name}.xml"))
    assert model.body(link).pos.tolist() == pytest.approx(partnet(*ORIGINS[name, link]), abs=1e-8)


def test_every_authored_object_names_its_original():
    for path in ASSETS.glob("*.xml"):
        text = path.read_text()
        assert text.startswith("<!--") and "no part of any data set" in text
    assert {actor.asset.path for name in TASKS for actor in actors(name).values() if isinstance(actor.asset, Mjcf)} >= {
        str(path) for path in ASSETS.glob("*.xml")
    }
