"""Drives, pushes, properties of single environments, and the rules that Isaac Gym has: numbers by hand."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch

from dima_isaac.errors import UsageError
from dima_isaac.gym import gymapi, gymtorch
from dima_isaac.gym.rules import IsaacGymWarning
from tests.gym.boxes import GYM, Small, box, chosen, sled

DT, H, MASS = 1 / 60, 1 / 240, 2.0  # frame, physics step, the sled's mass


def drive(mode: int, stiffness: float = 0.0, damping: float = 0.0, effort: float = 1e9):
    def change(env, actor, i):
        rows = GYM.get_actor_dof_properties(env, actor)
        rows["driveMode"], rows["stiffness"], rows["damping"], rows["effort"] = mode, stiffness, damping, effort
        assert GYM.set_actor_dof_properties(env, actor, rows)

    return change


def test_a_velocity_drive_approaches_its_target_at_its_rate(tmp_path):
    small = Small(sled(tmp_path), change=drive(gymapi.DOF_MODE_VEL, damping=10.0))
    small.send("set_dof_velocity_target_tensor", torch.tensor([1.0, -2.0]))
    v = 0.0
    for _ in range(12):
        small.step()
        for _ in range(4):  # implicit: v' = v + h k (1 - v') / m
            v = (v + H * 10.0 / MASS) / (1 + H * 10.0 / MASS)
        assert small.dof[:, 1].tolist() == pytest.approx([v, -2 * v], rel=1e-4)


def test_a_position_drive_gives_way_to_an_effort_by_its_stiffness(tmp_path):
    small = Small(sled(tmp_path), change=drive(gymapi.DOF_MODE_POS, stiffness=200.0, damping=40.0))
    forces = gymtorch.wrap_tensor(GYM.acquire_dof_force_tensor(small.sim))
    small.send("set_dof_position_target_tensor", torch.tensor([0.5, 0.0]))
    for _ in range(120):  # an effort lasts for one frame
        small.send("set_dof_actuation_force_tensor", torch.tensor([0.0, 30.0]))
        small.step()
    assert small.dof[:, 0].tolist() == pytest.approx([0.5, 30.0 / 200.0], abs=1e-3)
    GYM.refresh_dof_force_tensor(small.sim)
    assert forces.tolist() == pytest.approx([0.0, 0.0], abs=0.2)  # drive and effort balance
    small.step(120)
    assert small.dof[:, 0].tolist() == pytest.approx([0.5, 0.0], abs=1e-3)


def test_a_damper_follows_a_velocity_target(tmp_path):
    small = Small(sled(tmp_path), change=drive(gymapi.DOF_MODE_POS, stiffness=200.0, damping=40.0))
    small.send("set_dof_velocity_target_tensor", torch.tensor([1.0, 0.0]))
    small.step(200)
    assert small.dof[:, 0].tolist() == pytest.approx([40.0 / 200.0, 0.0], abs=1e-3)


def test_a_drive_is_as_strong_as_its_effort(tmp_path):
    small = Small(sled(tmp_path), change=drive(gymapi.DOF_MODE_POS, stiffness=1000.0, effort=4.0))
    small.send("set_dof_position_target_tensor", torch.tensor([50.0, -50.0]))
    small.step(30)
    assert small.dof[:, 1].tolist() == pytest.approx([4.0 / MASS * 0.5, -4.0 / MASS * 0.5], rel=1e-4)


def test_targets_and_efforts_reach_the_actors_that_are_named(tmp_path):
    small = Small(sled(tmp_path), envs=3)
    for actors, value in (([2], 6.0), ([0], 2.0)):  # both in one frame
        ids = torch.tensor(actors, dtype=torch.int32)
        small.send("set_dof_actuation_force_tensor_indexed", torch.full((3,), value), ids, 1)
    small.step()
    assert small.dof[:, 1].tolist() == pytest.approx([2.0 / MASS * DT, 0.0, 6.0 / MASS * DT], rel=1e-4)
    small.step()  # no effort now
    assert small.dof[2, 1].item() == pytest.approx(6.0 / MASS * DT, rel=1e-4)


def test_joints_that_differ_between_environments(tmp_path):
    def change(env, actor, i):
        drive(gymapi.DOF_MODE_POS, stiffness=100.0 * (i + 1), damping=20.0 * (i + 1))(env, actor, i)
        rows = GYM.get_actor_dof_properties(env, actor)
        rows["armature"] = 2.0 * i
        GYM.set_actor_dof_properties(env, actor, rows)

    small = Small(sled(tmp_path), envs=2, change=change)
    small.send("set_dof_actuation_force_tensor", torch.tensor([10.0, 10.0]))
    small.step()
    first = small.dof[:, 1].clone()
    for _ in range(300):
        small.send("set_dof_actuation_force_tensor", torch.tensor([10.0, 10.0]))
        small.step()
    assert small.dof[:, 0].tolist() == pytest.approx([10 / 100, 10 / 200], abs=1e-4)
    assert first[0] > 1.5 * first[1]  # twice the inertia


def test_masses_that_differ_between_environments():
    def change(env, actor, i):
        (body,) = GYM.get_actor_rigid_body_properties(env, actor)
        assert body.mass == pytest.approx(8.0)  # 0.2^3 m^3 of 1000 kg/m^3
        body.mass = 4.0 * (i + 1)
        GYM.set_actor_rigid_body_properties(env, actor, [body], True)

    small = Small(box(), change=change)
    push = torch.tensor([[12.0, 0.0, 0.0]]).repeat(2, 1)
    small.send("apply_rigid_body_force_tensors", push, None, gymapi.ENV_SPACE)
    small.step()
    assert small.root[:, 7].tolist() == pytest.approx([12 / 4 * DT, 12 / 8 * DT], rel=1e-4)


def test_friction_that_differs_between_environments():
    def change(env, actor, i):
        (shape,) = GYM.get_actor_rigid_shape_properties(env, actor)
        shape.friction = 0.2 + 0.4 * i
        GYM.set_actor_rigid_shape_properties(env, actor, [shape])

    at = gymapi.Transform(p=gymapi.Vec3(0, 0, 0.02))
    plate = lambda sim: GYM.create_box(sim, 0.4, 0.4, 0.04, chosen(angular_damping=0.0))
    small = Small(plate, gravity=9.81, ground=True, pose=at, change=change)
    small.step(10)
    push = torch.tensor([[0.7 * 6.4 * 9.81, 0.0, 0.0]]).repeat(2, 1)
    for _ in range(30):
        small.send("apply_rigid_body_force_tensors", push, None, gymapi.ENV_SPACE)
        small.step()
    slides, holds = small.root[:, 7].tolist()  # contact has the mean with the ground's 1: 0.6 and 0.8
    assert slides == pytest.approx(0.1 * 9.81 * 0.5, rel=0.2) and abs(holds) < 0.01


def test_pushes_turn_with_the_link_in_local_space():
    turned = gymapi.Transform(r=gymapi.Quat.from_euler_zyx(0.0, 0.0, math.pi / 2))
    for space, expected in ((gymapi.LOCAL_SPACE, [0.0, 8.0]), (gymapi.ENV_SPACE, [8.0, 0.0])):
        small = Small(box(), envs=1, pose=turned)
        force, torque = torch.tensor([[8.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.1]])
        small.send("apply_rigid_body_force_tensors", force, torque, space)
        small.step(3)  # it lasts for one frame
        assert small.root[0, 7:9].tolist() == pytest.approx([v / 8.0 * DT for v in expected], abs=1e-5)
        inertia = 8.0 * 0.2**2 / 6
        assert small.root[0, 12].item() == pytest.approx(0.1 / inertia * DT, rel=1e-3)


def test_a_box_falls_unless_its_asset_says_otherwise():
    for falls in (True, False):
        small = Small(box(disable_gravity=not falls), envs=1, gravity=9.81)
        small.step(30)
        assert small.root[0, 9].item() == pytest.approx(-9.81 * 0.5 * falls, rel=1e-4)


def test_environments_start_where_their_actors_were_created():
    made = {}

    def asset(sim):
        made["asset"] = box(disable_gravity=True)(sim)
        return made["asset"]

    def change(env, actor, i):
        GYM.create_actor(env, made["asset"], gymapi.Transform(p=gymapi.Vec3(1.0 + i, 2.0, 3.0)), "other", i, 0, 0)

    small = Small(asset, change=change)
    assert GYM.get_sim_actor_count(small.sim) == 4 and GYM.get_sim_dof_count(small.sim) == 0
    expected = [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [2.0, 2.0, 3.0]]
    assert small.root[:, :3].tolist() == expected
    env = small.sim.world.envs[1]
    assert GYM.find_actor_handle(env, "other") == 1 and GYM.find_actor_handle(env, "none") == -1
    assert GYM.get_actor_index(env, 1, gymapi.DOMAIN_SIM) == 3 and GYM.get_actor_index(env, 1, gymapi.DOMAIN_ENV) == 1


def test_an_actor_of_another_collision_group_is_a_marker():
    made = {}

    def asset(sim):
        made["asset"] = box()(sim)
        made["mark"] = box(disable_gravity=True)(sim)
        return made["asset"]

    def change(env, actor, i):
        GYM.create_actor(env, made["mark"], gymapi.Transform(), "mark", i + 2, 0, 0)

    small = Small(asset, gravity=9.81, change=change)  # one inside the other
    small.step(30)
    fallen, mark = small.root.view(2, 2, 13)[0]
    assert fallen[9].item() == pytest.approx(-4.905, rel=1e-4) and mark[:3].tolist() == [0, 0, 0]
    small.root[[1, 3], 2] = 5.0
    ids = torch.tensor([1], dtype=torch.int32)
    small.send("set_actor_root_state_tensor_indexed", small.root, ids, 1)
    small.step()
    assert small.root[[1, 3], 2].tolist() == [5.0, 0.0]


# ---- rules -----------------------------------------------------------------------------------------------------


def actors(*ids: int) -> torch.Tensor:
    return torch.tensor(ids, dtype=torch.int32)


@pytest.mark.parametrize(
    ("breach", "words"),
    [
        (lambda s: GYM.prepare_sim(s.sim), "prepare_sim is called once"),
        (lambda s: [s.send("set_actor_root_state_tensor_indexed", s.root, actors(i), 1) for i in range(2)],
         "called twice before simulate"),
        (lambda s: (s.send("set_actor_root_state_tensor", s.root), GYM.refresh_rigid_body_state_tensor(s.sim)),
         "still where they were before"),
        (lambda s: s.send("set_actor_root_state_tensor_indexed", s.root, torch.tensor([0]), 1), "torch.int32"),
        (lambda s: s.send("set_dof_state_tensor_indexed", s.dof, actors(0), 1), "actor without joints"),
        (lambda s: (GYM.simulate(s.sim), GYM.refresh_dof_state_tensor(s.sim)), "needs fetch_results"),
        (lambda s: (GYM.simulate(s.sim), GYM.simulate(s.sim)), "needs fetch_results"),
        (lambda s: (GYM.simulate(s.sim), GYM.fetch_results(s.sim, True), GYM.simulate(s.sim)), "never refreshed"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_said_once_and_at_the_program_s_line(breach, words):
    small = Small(box())
    with pytest.warns(IsaacGymWarning, match=words) as found:
        breach(small)
    (line,) = [one for one in found if words in str(one.message)]
    assert Path(line.filename).parent == Path(__file__).parent  # not in the package
    with warnings.catch_warnings(record=True) as again:
        warnings.simplefilter("always")
        breach(small)
    assert not [one for one in again if words in str(one.message)]


def test_a_root_that_is_fixed_cannot_be_set(tmp_path):
    small = Small(sled(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error", IsaacGymWarning)
        small.send("set_actor_root_state_tensor", small.root)
    small.step()
    small.root[:, 0] += 1.0
    with pytest.warns(IsaacGymWarning, match="'it' has a fixed base"):
        small.send("set_actor_root_state_tensor", small.root)


def test_acquiring_prepares_and_says_so():
    small = Small(box(), prepare=False)
    with pytest.warns(IsaacGymWarning, match="needs prepare_sim before"):
        GYM.acquire_actor_root_state_tensor(small.sim)
    assert small.sim.prepared


def test_physics_that_diverges_is_said():
    small = Small(box(), envs=2)
    state = small.root.clone()
    state[1, 7] = 1e30
    small.send("set_actor_root_state_tensor", state)
    with pytest.warns(IsaacGymWarning, match="physics of environment 1 diverged in frame 0"):
        GYM.simulate(small.sim)


def test_what_cannot_be_is_refused(tmp_path):
    small = Small(box(), prepare=False)
    for call in (GYM.simulate, GYM.refresh_dof_state_tensor):
        with pytest.raises(UsageError, match="prepare_sim first"):
            call(small.sim)
    with pytest.raises(UsageError, match="no environment with an actor"):
        Small(box(), envs=0)
    settings = gymapi.SimParams()
    with pytest.raises(UsageError, match="UP_AXIS_Z"):
        GYM.create_sim(0, -1, gymapi.SIM_PHYSX, settings)
    settings.up_axis, settings.use_gpu_pipeline = gymapi.UP_AXIS_Z, True
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="--pipeline cpu"):
            GYM.create_sim(0, -1, gymapi.SIM_PHYSX, settings)
    small = Small(box())
    with pytest.raises(UsageError, match="create_env after prepare_sim"):
        GYM.create_env(small.sim, gymapi.Vec3(), gymapi.Vec3(), 1)
    with pytest.raises(NotImplementedError, match="after prepare_sim"):
        GYM.set_actor_dof_properties(small.sim.world.envs[0], 0, None)
    with pytest.raises(TypeError, match="unwrap_tensor"):
        GYM.set_actor_root_state_tensor(small.sim, small.root)
    with pytest.raises(ValueError, match="contiguous"):
        gymtorch.unwrap_tensor(small.root[:, :7])


def test_environments_that_differ_in_more_than_properties_are_refused(tmp_path):
    def another(env, actor, i):
        if i:
            GYM.create_actor(env, box()(None), gymapi.Transform(), "more", i, 0, 0)

    with pytest.raises(UsageError, match="environment 1 has other actors"):
        Small(box(), change=another)

    def elsewhere(env, actor, i):
        GYM.create_actor(env, made, gymapi.Transform(p=gymapi.Vec3(i, 0, 0)), "post", i, 0, 0)

    made = GYM.create_box(None, 0.1, 0.1, 0.1, chosen(fix_base_link=True))
    with pytest.raises(UsageError, match="'post' is fixed, and stands elsewhere"):
        Small(box(), change=elsewhere)
    modes = lambda env, actor, i: drive(i)(env, actor, i)
    with pytest.raises(UsageError, match="several drive modes"):
        Small(sled(tmp_path), change=modes)
