"""The mirrored left hand is the right hand's mirror image, joint for joint."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from dima_isaac import make
from dima_isaac.tasks.bidexhands.hands.hand import JOINTS, PALM, TIPS, shadow_hand

FLIP = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def models():
    return [mujoco.MjModel.from_xml_string(shadow_hand(mirrored).xml) for mirrored in (False, True)]


def poses(models, angles):
    out = []
    for model in models:
        data = mujoco.MjData(model)
        for joint, angle in zip(JOINTS, angles, strict=True):
            data.joint(joint).qpos[0] = angle
        mujoco.mj_forward(model, data)
        out.append(data)
    return out


def test_every_body_is_where_the_mirror_shows_it(models):
    right, _ = models
    rng = np.random.default_rng(0)
    limits = np.array([right.joint(joint).range for joint in JOINTS])
    root = models[0].body_pos[1]
    for angles in (np.zeros(24), *(limits[:, 0] + rng.random((3, 24)) * (limits[:, 1] - limits[:, 0]))):
        one, other = poses(models, angles)
        for name in (*TIPS, PALM, "forearm", "thhub"):
            a, b = one.body(name).xpos - root, other.body(name).xpos - models[1].body_pos[1]
            assert np.allclose(b, FLIP * a, atol=1e-9), name
            com_a, com_b = one.body(name).xipos - root, other.body(name).xipos - models[1].body_pos[1]
            assert np.allclose(com_b, FLIP * com_a, atol=1e-9), name
            # a reflected orientation is R with both sides reflected, so that the frame stays right-handed
            mirror = np.diag(FLIP)
            turned = mirror @ one.body(name).xmat.reshape(3, 3) @ mirror
            assert np.allclose(other.body(name).xmat.reshape(3, 3), turned, atol=1e-9), name


def test_masses_limits_and_joint_inertias_are_the_same(models):
    right, left = models
    assert np.allclose(right.body_mass, left.body_mass)
    assert np.allclose(right.jnt_range, left.jnt_range)
    one, other = poses(models, np.linspace(0.1, 0.3, 24))
    full = [np.zeros((model.nv, model.nv)) for model in models]
    for model, data, inertia in zip(models, (one, other), full, strict=True):
        mujoco.mj_fullM(model, data, inertia)
    assert np.allclose(*full, atol=1e-9)


def test_a_task_takes_it_and_its_thumb_is_on_the_other_side():
    sides = {}
    for left in ("right", "mirrored"):
        values = {"left_hand": left, "reset_dof_noise": 0.0}
        env = make("ShadowHandCatchUnderarm", num_envs=1, engine="mujoco", device="cpu", **values)
        env.reset()
        tips = env.task.tips()[0]
        sides[left] = (float(tips[1, 4, 0]), float(tips[0, 4, 0]))
        assert torch.isfinite(env.step(torch.zeros(1, 2, 26)).state).all()
        env.close()
    assert sides["right"][0] == pytest.approx(0.0976, abs=2e-3)  # turned by pi about z against hand 0
    assert sides["mirrored"][0] == pytest.approx(-0.0976, abs=2e-3)
    assert sides["right"][1] == sides["mirrored"][1] == pytest.approx(-0.0976, abs=2e-3)
