"""Assets: links, joints and shapes of MJCF, URDF and primitives, as Isaac Gym's importer counts them."""

from __future__ import annotations

import numpy as np
import pytest

from dima_isaac.errors import UsageError
from dima_isaac.gym import gymapi
from tests.gym.boxes import GYM, chosen

PARTS = """<mujoco><default><joint damping="0.3"/></default><asset><material name="red"/></asset></mujoco>"""
ROBOT = """<mujoco model="r"><compiler angle="degree"/><include file="parts.xml"/><option gravity="1 2 3"/>
<worldbody><light pos="0 0 3"/><body pos="0 0 9"><freejoint/><geom size="0.1" material="red"/>
<body name="arm"><joint name="turn" axis="0 0 1" range="-90 45" limited="true" armature="0.2"/>
<geom type="box" size="0.1 0.1 0.1" mass="3"/><geom size="0.3" mass="0" contype="0" conaffinity="0"/>
<body name="rod"><joint name="lift" type="slide" range="0 2" limited="true"/><geom size="0.1"/></body></body></body>
</worldbody><actuator><position joint="turn" kp="7" kv="0.5" forcerange="-4 4" ctrlrange="-1 1"/>
<motor joint="lift" gear="12"/></actuator>
<tendon><fixed name="both"><joint joint="turn" coef="1"/><joint joint="lift" coef="-1"/></fixed></tendon></mujoco>"""

CHAIN = """<robot name="c"><link name="base"><inertial><mass value="2"/></inertial>
<collision><geometry><box size="0.2 0.2 0.2"/></geometry></collision></link>
<link name="tool"><inertial><mass value="0.5"/><inertia ixx="0.01" iyy="0.01" izz="0.01" ixy="0" ixz="0" iyz="0"/>
</inertial></link><link name="wheel"><collision><geometry><sphere radius="0.1"/></geometry></collision></link>
<joint name="weld" type="fixed"><parent link="base"/><child link="tool"/><origin xyz="0 0 0.2"/></joint>
<joint name="roll" type="revolute"><parent link="tool"/><child link="wheel"/><axis xyz="0 1 0"/>
<limit lower="-1" upper="2" effort="9" velocity="3"/></joint></robot>"""


@pytest.fixture
def load(tmp_path):
    for name, text in (("parts.xml", PARTS), ("robot.xml", ROBOT), ("chain.urdf", CHAIN)):
        (tmp_path / name).write_text(text)
    return lambda name, **options: GYM.load_asset(None, str(tmp_path), name, chosen(**options))


def test_an_mjcf_file(load):
    asset = load("robot.xml", armature=0.05)
    names = GYM.get_asset_rigid_body_names(asset)
    assert names[1:] == ["arm", "rod"] and len(names) == GYM.get_asset_rigid_body_count(asset) == 3
    assert GYM.get_asset_dof_names(asset) == ["turn", "lift"] and GYM.get_asset_dof_dict(asset) == {
        "turn": 0,
        "lift": 1,
    }
    assert GYM.get_asset_rigid_shape_count(asset) == 3  # not the visual one
    rows = GYM.get_asset_dof_properties(asset)
    assert rows["lower"].tolist() == pytest.approx([-np.pi / 2, 0]) and rows["upper"].tolist() == pytest.approx(
        [np.pi / 4, 2]
    )
    assert rows["driveMode"].tolist() == [gymapi.DOF_MODE_POS, gymapi.DOF_MODE_NONE]
    assert rows["stiffness"].tolist() == [7.0, 0.0] and rows["damping"].tolist() == pytest.approx([0.8, 0.3])
    assert rows["armature"].tolist() == pytest.approx([0.25, 0.05]) and rows["effort"][0] == 4.0
    assert [GYM.get_asset_actuator_joint_name(asset, i) for i in range(GYM.get_asset_actuator_count(asset))] == [
        "turn",
        "lift",
    ]
    position, motor = GYM.get_asset_actuator_properties(asset)
    assert (position.kp, position.upper_control_limit, motor.motor_effort) == (7.0, 1.0, 12.0)
    assert GYM.get_asset_tendon_name(asset, 0) == "both" and GYM.get_asset_tendon_properties(asset)[0].num_joints == 2
    assert asset.masses()[1] == pytest.approx(3.0)
    assert asset.masses()[0] == pytest.approx(1000 * 4 / 3 * np.pi * 0.1**3)
    assert GYM.find_asset_rigid_body_index(asset, "rod") == 2 and GYM.find_asset_dof_index(asset, "none") == -1


def test_a_urdf_file_with_and_without_its_fixed_joints(load):
    asset = load("chain.urdf")
    assert GYM.get_asset_rigid_body_names(asset) == ["base", "tool", "wheel"]
    assert asset.masses()[:2] == pytest.approx([2.0, 0.5], rel=1e-4)  # of a mass without inertia, its shapes' inertia
    rows = GYM.get_asset_dof_properties(asset)
    assert (rows["lower"][0], rows["upper"][0], rows["effort"][0]) == (-1.0, 2.0, 9.0)
    merged = load("chain.urdf", collapse_fixed_joints=True)
    assert GYM.get_asset_rigid_body_names(merged) == ["base", "wheel"]
    assert merged.masses()[0] == pytest.approx(2.5, rel=1e-4)


def test_a_link_without_mass_may_move(tmp_path):
    helper = CHAIN.replace('type="fixed"', 'type="prismatic"').replace('<inertial><mass value="0.5"/><inertia', "<x")
    helper = helper.replace('</inertial></link><link name="wheel', '</link><link name="wheel')
    (tmp_path / "helper.urdf").write_text(helper)
    asset = GYM.load_asset(None, str(tmp_path), "helper.urdf", chosen())
    assert GYM.get_asset_dof_names(asset) == ["weld", "roll"] and 0 < asset.masses()[1] < 0.01


def test_primitives():
    box = GYM.create_box(None, 0.1, 0.2, 0.3, chosen(density=500.0))
    assert box.masses() == pytest.approx([500 * 0.1 * 0.2 * 0.3])
    ball = GYM.create_sphere(None, 0.1, chosen())
    assert ball.masses() == pytest.approx([1000 * 4 / 3 * np.pi * 1e-3])
    assert GYM.get_asset_dof_count(ball) == 0 and GYM.get_asset_rigid_body_count(ball) == 1


def test_options_are_taken_when_the_asset_is_made():
    options = chosen(density=100.0)
    box = GYM.create_box(None, 1.0, 1.0, 1.0, options)
    options.fix_base_link = True
    assert not box.options.fix_base_link


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<mujoco", "is not XML"),
        ("<sdf/>", "neither MJCF nor URDF: its first element is <sdf>"),
        ("<mujoco><worldbody/></mujoco>", "has no body"),
        ("<robot name='r'/>", "MuJoCo cannot read|has no link"),
        ("<mujoco><worldbody><body><geom size='1'/><body><joint type='ball'/><geom size='1'/></body></body></worldbody>"
         "</mujoco>", "ball joints"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path, text, words):
    (tmp_path / "it.xml").write_text(text)
    with pytest.raises(UsageError, match=words):
        GYM.load_asset(None, str(tmp_path), "it.xml", chosen())
    with pytest.raises(UsageError, match=r"there is no asset .*none\.xml"):
        GYM.load_asset(None, str(tmp_path), "none.xml")
