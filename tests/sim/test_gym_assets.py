"""Assets written for Isaac Gym's importer, read back by MuJoCo: the same bodies in the same places."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import mujoco
import numpy as np
import pytest

from dima_isaac.errors import UsageError
from dima_isaac.sim.isaacgym.assets import gym_asset
from dima_isaac.sim.mjcf import load_asset_model
from dima_isaac.sim.scene import Actor, Box, Ellipsoid, Mjcf
from tests.sim.toss import BOX
from tests.tasks.bidexhands.test_suite import TASKS, task_of


def assets() -> dict[str, Mjcf]:
    """Every asset of the two-handed tasks, by the actor that first has it."""
    found: dict[Mjcf, str] = {}
    for task in TASKS:
        for actor in task_of(task).scene().actors:
            if isinstance(actor.asset, Mjcf):
                found.setdefault(actor.asset, f"{task}:{actor.name}")
    return {name: asset for asset, name in found.items()}


def read_back(asset: Mjcf, folder: Path) -> tuple[mujoco.MjModel, mujoco.MjModel, np.ndarray]:
    """What was written, what it was written from, and the root's rotation that is no longer in it."""
    written = gym_asset(Actor("it", asset, fixed=True))
    model = mujoco.MjModel.from_xml_path(str(folder / written.write(folder, "it")))
    x, y, z, w = written.root_quat
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, np.array([w, x, y, z]))
    return model, load_asset_model(asset)[0], turn.reshape(3, 3)


def test_every_asset_keeps_its_masses_places_and_joints(tmp_path: Path) -> None:
    every = assets()
    assert len(every) >= 10
    for name, asset in every.items():
        mine, theirs, turn = read_back(asset, tmp_path)
        assert (mine.nbody, mine.njnt, mine.ngeom) == (theirs.nbody, theirs.njnt, theirs.ngeom), name
        assert (mine.ntendon, mine.npair) == (theirs.ntendon, theirs.npair), name
        for field in ("body_mass", "jnt_range", "dof_damping", "dof_armature", "geom_contype", "tendon_range"):
            np.testing.assert_allclose(getattr(mine, field), getattr(theirs, field), rtol=1e-6, atol=1e-9, err_msg=name)
        rng, a, b = np.random.default_rng(0), mujoco.MjData(mine), mujoco.MjData(theirs)
        a.qpos[:] = b.qpos[:] = rng.uniform(-0.5, 0.5, mine.nq)
        mujoco.mj_forward(mine, a)
        mujoco.mj_forward(theirs, b)
        # the root's rotation hangs on what is under it, so nothing has moved
        for field in ("xpos", "xipos", "geom_xpos"):
            np.testing.assert_allclose(getattr(a, field), getattr(b, field), atol=1e-6, err_msg=name)
        root = b.xmat[1].reshape(3, 3)
        np.testing.assert_allclose(root, turn, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(a.xmat[1].reshape(3, 3), np.eye(3), atol=1e-6, err_msg=name)
        np.testing.assert_allclose(a.xmat[2:], b.xmat[2:], atol=1e-6, err_msg=name)
        inertia = [np.zeros((m.nv, m.nv)) for m in (mine, theirs)]
        for out, m, d in zip(inertia, (mine, theirs), (a, b), strict=True):
            mujoco.mj_fullM(m, d, out)
        np.testing.assert_allclose(*inertia, atol=1e-7, err_msg=name)


def test_nothing_is_left_for_the_importer_to_resolve() -> None:
    """No defaults, no Euler angles, no meshes by reference to another package's folder."""
    for asset in assets().values():
        written = gym_asset(Actor("it", asset))
        root = ET.fromstring(written.xml)
        assert not root.findall(".//default") and not root.findall(".//equality")
        for node in root.iter():
            assert not {"euler", "axisangle", "fromto", "class", "childclass"} & node.attrib.keys()
        assert {node.get("file") for node in root.iter("mesh")} == written.meshes.keys() | (set())
        assert all(node.find("inertial") is not None for node in root.iter("body"))


@pytest.mark.parametrize("asset", [Box((0.1, 0.1, 0.1)), Mjcf(xml=BOX)])
def test_a_root_that_is_not_fixed_has_a_free_joint(asset: Box | Mjcf) -> None:
    """The importer fixes one without."""
    for fixed in (False, True):
        model = mujoco.MjModel.from_xml_string(gym_asset(Actor("it", asset, fixed=fixed)).xml)
        assert model.jnt_type.tolist() == ([] if fixed else [int(mujoco.mjtJoint.mjJNT_FREE)])
    assert gym_asset(Actor("it", asset, marker=True)).xml.count("freejoint") == 1


@pytest.mark.parametrize(
    ("asset", "mass", "shape"),
    [
        (Box((0.1, 0.2, 0.3), density=500.0), 3.0, "box"),
        (Ellipsoid((0.1, 0.1, 0.1), density=300.0), 0.4 * np.pi, "sphere"),
        (Ellipsoid((0.03, 0.03, 0.04), density=500.0), 500 * 4 / 3 * np.pi * 0.03 * 0.03 * 0.04, "ellipsoid"),
    ],
)
def test_primitives(asset: Box | Ellipsoid, mass: float, shape: str) -> None:
    model = mujoco.MjModel.from_xml_string(gym_asset(Actor("it", asset)).xml)
    assert model.body_mass[1] == pytest.approx(mass) and f'type="{shape}"' in gym_asset(Actor("it", asset)).xml


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ('<joint/><geom size="0.1"/>', "a joint on an asset's first body"),
        ('<geom size="0.1"/><body><joint type="ball"/><geom size="0.1"/></body>', "other than hinges"),
        ('<geom size="0.1"/><body><joint stiffness="3"/><geom size="0.1"/></body>', "springs"),
    ],
)
def test_what_the_importer_does_not_support_is_refused(body: str, what: str) -> None:
    xml = f'<mujoco><worldbody><body name="it">{body}</body></worldbody></mujoco>'
    with pytest.raises(UsageError, match=what):
        gym_asset(Actor("it", Mjcf(xml=xml)))
