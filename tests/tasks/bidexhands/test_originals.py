"""The user's own meshes: small stand-ins written here take the places of the benchmark's files."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from dima_isaac import make
from dima_isaac.errors import UsageError
from dima_isaac.sim.compiled import compile_scene
from dima_isaac.sim.config import MujocoConfig
from tests.tasks.bidexhands.stage import everyone
from tests.tasks.bidexhands.test_suite import START_POINTS, task_of

BOX = "\n".join(
    [f"v {x} {y} {z}" for x in (-0.01, 0.01) for y in (-0.01, 0.01) for z in (-0.01, 0.01)]
    + ["f 1 2 4", "f 1 4 3", "f 5 7 8", "f 5 8 6", "f 1 5 6", "f 1 6 2", "f 3 4 8", "f 3 8 7", "f 1 3 7", "f 1 7 5"]
    + ["f 2 6 8", "f 2 8 4"]
)
TURN = 'rpy="1.5707963267948966 0 -1.5707963267948966"'  # y-up links below a z-up base


def link(name: str, at: str = "0 0 0", extra: str = "") -> str:
    shape = f'<origin xyz="{at}"/><geometry><mesh filename="m/box.obj" scale="1 2 1"/></geometry>'
    return f'<link name="{name}"><visual>{shape}</visual><collision>{shape}</collision>{extra}</link>'


def joint(kind: str, parent: str, child: str, at: str = "0 0 0", rest: str = "") -> str:
    return (
        f'<joint name="{child}_joint" type="{kind}"><origin {TURN if parent == "base" else ""} xyz="{at}"/>{rest}'
        f'<parent link="{parent}"/><child link="{child}"/></joint>'
    )


def limits(axis: str, low: float, high: float) -> str:
    return f'<axis xyz="{axis}"/><limit lower="{low}" upper="{high}"/>'


def write(folder: Path, robot: str) -> None:
    (folder / "m").mkdir(parents=True)
    (folder / "m" / "box.obj").write_text(BOX)
    (folder / "mobility.urdf").write_text(f'<robot name="it"><link name="base"/>{robot}</robot>')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Doors, scissors and a bottle with the published hinges; link (x, y, z) is (-z, -x, y) of the base."""
    door = link("link_0") + link("link_1", "0.3 -0.4 0") + link("link_2", "-0.3 -0.4 0")
    door += joint("fixed", "base", "link_0")
    door += joint("revolute", "link_0", "link_1", "-0.42652707 0.483292 0.00846186", limits("0 -1 0", 0.0, 1.5707))
    door += joint("revolute", "link_0", "link_2", "0.42040686 0.483292 0.00559989", limits("0 1 0", 0.0, 1.5707))
    write(tmp_path / "mjcf" / "door", door)
    scissors = link("link_1") + link("link_0", "0.1 0 -0.05") + joint("fixed", "base", "link_1")
    scissors += joint("revolute", "link_1", "link_0", "-0.0698 0 0.0034", limits("0 1 0", -0.597, 0.4))
    write(tmp_path / "mjcf" / "scissors" / "10495", scissors)
    bottle = link("link_0") + '<link name="helper"/>' + link("link_1", "-0.00700596 0.1445 -0.00754211")
    bottle += joint("fixed", "base", "link_0")
    bottle += joint("prismatic", "link_0", "helper", "0.00700596 0 0.00754211", limits("0 1 0", 0.0, 0.064))
    bottle += joint("continuous", "helper", "link_1", rest='<axis xyz="0 1 0"/>')
    write(tmp_path / "mjcf" / "bottle_cap", bottle)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["ShadowHandDoorOpenInward", "ShadowHandDoorCloseOutward", "ShadowHandScissors", "ShadowHandBottleCap"]
)
def test_points_are_where_the_authored_objects_have_them(root, name):
    env = make(name, num_envs=1, engine="mujoco", device="cpu", assets_root=str(root))
    env.reset()
    for point, expected in zip(env.task.points()[0].tolist(), START_POINTS[name], strict=False):
        assert point == pytest.approx(expected, abs=1.2e-3)
    env.close()


def test_meshes_joints_and_masses_are_the_files(root):
    scene = task_of("ShadowHandBottleCap", assets_root=str(root)).scene()
    model = compile_scene(scene, MujocoConfig()).model
    lift, turn = model.joint("bottle/cap_lift"), model.joint("bottle/cap_turn")
    assert lift.type[0] == mujoco.mjtJoint.mjJNT_SLIDE and lift.axis.tolist() == pytest.approx([0, 0, 1])
    assert lift.range.tolist() == pytest.approx([0.0, 0.064])
    assert turn.type[0] == mujoco.mjtJoint.mjJNT_HINGE and not model.jnt_limited[turn.id]
    assert model.dof_damping[lift.dofadr[0]] == 1.0  # the authored cap's
    assert model.body("bottle/bottle").mass[0] == pytest.approx(500 * 0.02 * 0.04 * 0.02)  # scale 1 2 1
    cap = model.geom_bodyid == model.body("bottle/cap").id
    # the mesh is about the bottle's axis, and the link's origin beside it
    assert model.geom_pos[cap][0].tolist() == pytest.approx([0.00754211, 0.00700596, 0.1445], abs=1e-9)
    assert model.body("bottle/cap").pos.tolist() == pytest.approx([-0.00754211, -0.00700596, 0.0], abs=1e-9)
    assert model.geom_contype[cap].all() and (model.geom_type[cap] == mujoco.mjtGeom.mjGEOM_MESH).all()


def test_leaves_swing_as_the_hinges_say(root):
    env = make("ShadowHandDoorOpenInward", num_envs=1, engine="mujoco", device="cpu", assets_root=str(root))
    env.reset()
    engine = env.engine
    pos = engine.dof_pos.clone()
    for leaf in ("right_hinge", "left_hinge"):
        pos[0, engine.dof_names.index(f"door/{leaf}")] = 1.4
    engine.set_dof_state(everyone(env), pos, pos * 0)
    engine.refresh(everyone(env))
    assert bool(env.task.compute_reward(engine).success)
    assert (env.task.points()[0, :2, 0] > 0.3).all()  # toward the hands
    env.close()


def test_an_inertial_of_the_file_is_used(tmp_path):
    inertial = '<inertial><mass value="3"/><inertia ixx="0.4" iyy="0.2" izz="0.3"/></inertial>'
    pot = link("link_0", extra=inertial) + link("link_1") + joint("fixed", "base", "link_0")
    pot += joint("prismatic", "link_0", "link_1", rest=limits("0 1 0", 0.0, 0.06))
    write(tmp_path / "mjcf" / "pot", pot)
    model = compile_scene(task_of("ShadowHandLiftUnderarm", assets_root=str(tmp_path)).scene(), MujocoConfig()).model
    body = model.body("pot/pot")
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, body.iquat)
    turn = turn.reshape(3, 3)
    # the link's (x, y, z) are the base's (-y, z, -x)
    assert body.mass[0] == 3.0
    assert np.allclose(turn @ np.diag(body.inertia) @ turn.T, np.diag([0.3, 0.4, 0.2]))
    assert model.joint("pot/lid_lift").axis.tolist() == pytest.approx([0, 0, 1])


def test_what_is_missing_is_named(root, tmp_path):
    with pytest.raises(UsageError, match=r"has neither .*mjcf/pen/mobility.urdf nor .*mjcf/pen/2939/mobility.urdf"):
        task_of("ShadowHandPen", assets_root=str(root))
    (root / "mjcf" / "door" / "m" / "box.obj").unlink()
    with pytest.raises(UsageError, match=r"door/mobility.urdf needs .*door/m/box.obj, which is missing"):
        task_of("ShadowHandDoorOpenInward", assets_root=str(root))


def test_another_shape_of_thing_is_refused(tmp_path):
    write(tmp_path / "mjcf" / "pen", link("link_0") + joint("fixed", "base", "link_0"))
    with pytest.raises(UsageError, match="has no moving link for cap, cap_slide"):
        task_of("ShadowHandPen", assets_root=str(tmp_path))
    twice = link("link_0") + link("a") + link("b") + joint("fixed", "base", "link_0")
    twice += joint("prismatic", "link_0", "a") + joint("prismatic", "link_0", "b")
    write(tmp_path / "mjcf" / "cup", twice)
    with pytest.raises(UsageError, match="another moving joint, b_joint"):
        task_of("ShadowHandSwingCup", assets_root=str(tmp_path))
    (tmp_path / "mjcf" / "cup" / "mobility.urdf").write_text("<robot")
    with pytest.raises(UsageError, match="is not a URDF"):
        task_of("ShadowHandSwingCup", assets_root=str(tmp_path))


def test_tasks_without_original_objects_ignore_assets_root():
    assert task_of("ShadowHandOver", assets_root="/nowhere").spec.dims.state == 398
