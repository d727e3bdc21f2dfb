"""Whole programs of Isaac Gym's calls: what they see is what MuJoCo computes of models written by hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings

import mujoco
import numpy as np
import pytest
import torch

from dima_isaac.gym.rules import IsaacGymWarning
from dima_isaac.sim.config import MujocoConfig
from dima_isaac.sim.mujoco.engine import MujocoEngine
from dima_isaac.sim.rotations import rotate
from dima_isaac.tasks.bidexhands.hands.hand import shadow_hand
from tests.gym.conftest import PROGRAMS
from tests.tasks.bidexhands.test_suite import task_of


def test_a_pole_swings_with_the_period_of_its_equation(program, tmp_path):
    cartpole = program("cartpole")
    env = cartpole.Cartpole(tmp_path, 1, dt=1 / 480)
    env.dof_pos[:], env.dof_vel[:] = torch.tensor([[0.0, math.pi - 0.03]]), 0.0
    env.gym.set_dof_state_tensor(env.sim, cartpole.gymtorch.unwrap_tensor(env.dof_state))
    angles = []
    for _ in range(960):
        env.step(torch.zeros(1))
        angles.append(float(env.dof_pos[0, 1]) - math.pi)
    m, total, length = cartpole.POLE, cartpole.POLE + cartpole.CART, cartpole.HALF
    inertia = m * length**2 * 4 / 3  # about the joint
    omega = math.sqrt(total * m * 9.81 * length / (total * inertia - (m * length) ** 2))  # with a cart that gives way
    signs = np.flatnonzero(np.diff(np.sign(angles)))
    half = np.mean(np.diff(signs)) / 480
    assert half == pytest.approx(math.pi / omega, rel=2e-3)
    assert max(np.abs(angles)) == pytest.approx(0.03, rel=0.02)


def test_an_upright_pole_falls_and_pushes_the_cart_back(program, tmp_path):
    env = program("cartpole").Cartpole(tmp_path, 2)
    env.dof_pos[:] = torch.tensor([[0.0, 0.1], [0.0, -0.1]])
    env.gym.set_dof_state_tensor(env.sim, program("cartpole").gymtorch.unwrap_tensor(env.dof_state))
    for _ in range(24):
        env.step(torch.zeros(2))
    assert env.dof_pos[0, 1] > 0.3 and env.dof_pos[0, 0] > 0.0  # +x turns the tip to -y, and the cart goes to +y
    assert torch.allclose(env.dof_pos[0], -env.dof_pos[1], atol=1e-5)


def test_efforts_give_the_trajectory_of_a_model_written_by_hand(program, tmp_path):
    cartpole = program("cartpole")
    env = cartpole.Cartpole(tmp_path, 3)
    model = mujoco.MjModel.from_xml_string(f"""<mujoco><option timestep="{1 / 240}" integrator="implicitfast"/>
        <worldbody><body pos="0 0 2"><joint type="slide" axis="0 1 0" limited="true" range="-4 4"/>
        <inertial pos="0 0 0" mass="{cartpole.CART}" diaginertia="0.01 0.01 0.01"/>
        <body><joint axis="1 0 0"/><inertial pos="0 0 {cartpole.HALF}" mass="{cartpole.POLE}"
        diaginertia="{cartpole.POLE * cartpole.HALF**2 / 3} {cartpole.POLE * cartpole.HALF**2 / 3} 0.0001"/>
        </body></body></worldbody></mujoco>""")
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    for _ in range(60):
        effort = rng.uniform(-20, 20, 3)
        env.step(torch.from_numpy(effort).float())
        data.qfrc_applied[0] = np.float32(effort[1])
        mujoco.mj_step(model, data, 4)
        assert env.dof_pos[1].tolist() == pytest.approx(data.qpos.tolist(), abs=2e-5)
        assert env.dof_vel[1].tolist() == pytest.approx(data.qvel.tolist(), abs=2e-4)
    assert abs(data.qpos[1]) > 0.5  # the pole has moved


def test_a_reset_gives_the_states_that_were_set_and_leaves_others(program, tmp_path):
    env = program("ant").Ant(tmp_path, 4)
    for _ in range(20):
        env.step(2 * torch.rand(4, 8) - 1)
    before = env.root_states.clone()
    dofs = env.dof_state.clone().view(4, 8, 2)
    env.reset_idx(torch.tensor([1, 3]))
    staged = env.dof_state.clone().view(4, 8, 2)
    env.refresh()
    assert torch.equal(env.root_states[[0, 2]], before[[0, 2]])
    assert torch.equal(env.root_states[[1, 3], :3], env.start[[1, 3], :3])
    assert (env.root_states[[1, 3], 7:] == 0).all()
    assert torch.equal(env.dof_state.view(4, 8, 2)[[0, 2]], dofs[[0, 2]])
    assert torch.equal(env.dof_state.view(4, 8, 2)[[1, 3]], staged[[1, 3]])
    env.step(torch.zeros(4, 8))
    assert (env.root_states[[1, 3], :2].abs() < 0.01).all()  # one frame later they are still there
    assert not torch.allclose(env.root_states[[0, 2], :2], env.start[[0, 2], :2], atol=0.01)


def test_an_ant_comes_to_stand_on_its_weight(program, tmp_path):
    env = program("ant").Ant(tmp_path, 1)
    for _ in range(240):
        env.step(torch.zeros(1, 8))
    assert env.root_states[0, 7:].abs().max() < 0.05
    (actor,) = env.sim.world.envs[0].actors
    weight = sum(actor.asset.masses()) * 9.81
    feet = env.bodies[0, env.foot_bodies]
    carried = rotate(feet[:, 3:7], env.feet[0, :, :3]).sum(0)  # sensors report in the axes of their links
    assert carried.tolist() == pytest.approx([0.0, 0.0, weight], abs=0.02 * weight)


def test_hands_and_egg_move_as_in_the_package_s_own_scene(program, tmp_path):
    (tmp_path / "hand.xml").write_text(shadow_hand().xml)
    env = program("hand_over").HandOver(tmp_path, 1)
    engine = MujocoEngine(task_of("ShadowHandOver").scene(), 1, MujocoConfig(threads=1))
    engine.refresh(torch.ones(1, dtype=torch.bool))
    assert [int(i) for i in engine.actuator_dofs] == env.driven.tolist()
    rng, nobody = torch.Generator().manual_seed(0), torch.zeros(1, dtype=torch.bool)
    egg = engine.actor_names.index("egg0")
    for k in range(30):
        env.step(0.5 * (2 * torch.rand(1, 40, generator=rng) - 1))
        engine.set_dof_target(env.targets[:, env.driven])
        engine.step(nobody)
        assert torch.allclose(env.dof_state.view(1, -1, 2)[..., 0], engine.dof_pos, atol=1e-4), k
        assert torch.allclose(env.roots[:, 2, :3], engine.root_state[:, egg, :3], atol=1e-4), k
    assert 0.5 < env.roots[0, 2, 2] < 0.535  # the egg lies on the hand
    engine.close()


@pytest.mark.parametrize("name", ["cartpole", "ant", "hand_over"])
def test_a_well_behaved_program_breaks_no_rule(program, tmp_path, name, capsys):
    (tmp_path / "hand.xml").write_text(shadow_hand().xml)
    with warnings.catch_warnings():
        warnings.simplefilter("error", IsaacGymWarning)
        program(name).main(tmp_path, 2, 12)
    assert json.loads(capsys.readouterr().out)["finite"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rewards"), [("cartpole", (0.0, 1.0)), ("ant", (-1.0, 1.0)), ("hand_over", (0.047, 0.057))]
)
def test_programs_run_for_a_thousand_frames(tmp_path, name, rewards):
    (tmp_path / "hand.xml").write_text(shadow_hand().xml)
    command = [sys.executable, "-m", "dima_isaac.gym", "--threads", "1", str(PROGRAMS / f"{name}.py"), str(tmp_path)]
    done = subprocess.run([*command, "16", "1000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["finite"] and found["resets"] > 0
    assert all(rewards[0] < reward < rewards[1] for reward in found["rewards"][1:9])


@pytest.mark.slow
def test_a_program_sees_the_same_on_mujoco_warp(program, tmp_path, monkeypatch):
    from dima_isaac.gym import simulation

    pytest.importorskip("mujoco_warp")
    seen = {}
    for engine in ("mujoco", "mujoco_warp"):
        monkeypatch.setattr(simulation.SETTINGS, "engine", engine)
        env = program("cartpole").Cartpole(tmp_path, 2)
        env.dof_pos[:] = torch.tensor([[0.1, 0.1], [0.2, -0.1]])
        env.gym.set_dof_state_tensor(env.sim, program("cartpole").gymtorch.unwrap_tensor(env.dof_state))
        for k in range(10):
            env.step(torch.tensor([5.0, -5.0]) if k < 5 else torch.zeros(2))
        seen[engine] = env.dof_state.clone()
    assert torch.allclose(seen["mujoco"], seen["mujoco_warp"], atol=1e-4)
    assert seen["mujoco"].abs().max() > 0.2
