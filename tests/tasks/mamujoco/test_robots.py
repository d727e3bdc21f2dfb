"""The robots in the vectorised environment: invariances, resets, limits, injection, returns of random play."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from dima_isaac import make
from dima_isaac.errors import UsageError
from dima_isaac.sim.model import compile_visuals
from dima_isaac.sim.render import camera
from dima_isaac.types import Step
from tests.tasks.mamujoco.reference import build, vectorise


def play(env: Any, ticks: int) -> list[Step]:
    """Random play in which environment i's actions do not depend on how many there are."""
    dims = env.spec.dims
    draws = [torch.Generator().manual_seed(i) for i in range(env.num_envs)]
    rows = [env.reset()]
    for _ in range(ticks):
        action = torch.stack([torch.rand(dims.agents, dims.action, generator=g) * 2 - 1 for g in draws])
        rows.append(env.step(action))
    return rows


def same(one: list[Step], other: list[Step], envs: int) -> bool:
    names = ("state", "obs", "reward", "first", "last", "terminal")
    pairs = zip(one, other, strict=True)
    return all(torch.equal(getattr(a, n)[:envs], getattr(b, n)[:envs]) for a, b in pairs for n in names)


@pytest.mark.parametrize("scenario", ["HalfCheetah", "Ant", "Humanoid", "Hopper"])
def test_threads_and_other_environments_change_nothing(scenario: str) -> None:
    alone = play(vectorise(build(scenario, depth=1), 3), 60)
    threaded = play(vectorise(build(scenario, depth=1), 7, threads=2), 60)
    assert same(alone, threaded, 3)
    ends = sum(int(row.last.sum()) for row in alone)
    assert (ends > 0) == (scenario != "HalfCheetah")


def test_the_next_state_does_not_depend_on_contact_forces() -> None:
    """From the same positions and velocities, reached (with forces) or set (with none), the continuations are equal."""
    lived, set_ = (vectorise(build("Ant", "4x2"), 4) for _ in range(2))
    output_only, row = lived.spec.output_only, play(lived, 29)[-1]
    assert output_only.tolist() == [False] * 27 + [True] * 78
    set_.reset()
    row_set = set_.set_physics_state(*lived.physics_state())
    assert (row.state - row_set.state)[:, output_only].abs().max() > 0.1
    action = torch.zeros(4, 4, 2)
    pairs = (lived.step(action), set_.step(action))
    states = [pair.state[~row.last] for pair in pairs]
    torch.testing.assert_close(states[0][:, ~output_only], states[1][:, ~output_only], rtol=0, atol=1e-6)
    for other in (build("HalfCheetah"), build("Ant", constants={"include_cfrc_ext_in_observation": False})):
        assert other.spec.output_only is None


def test_a_saved_environment_continues_bit_for_bit() -> None:
    env = vectorise(build("Ant", "4x2", 1), 4)
    play(env, 30)
    saved = {**env.state_dict(), "engine": {k: v.clone() for k, v in env.engine.state_dict().items()}}
    action = torch.rand(20, 4, 4, 2, generator=torch.Generator().manual_seed(3)) * 2 - 1
    went_on = [env.step(a) for a in action]
    other = vectorise(build("Ant", "4x2", 1), 4)
    other.reset()
    other.load_state_dict(saved)
    assert same(went_on, [other.step(a) for a in action], 4)


def test_resets_fill_the_benchmarks_ranges() -> None:
    env = vectorise(build("HalfCheetah"), 400)
    env.reset()
    qpos, qvel = env.physics_state()
    assert np.abs(qpos).max() <= 0.1 and np.abs(qpos).max() > 0.099
    assert abs(qvel.std() - 0.1) < 0.005 and np.abs(qvel).max() > 0.3
    hopper = vectorise(build("Hopper"), 400)
    hopper.reset()
    qpos, qvel = hopper.physics_state()
    rest = np.array([0.0, 1.25, 0.0, 0.0, 0.0, 0.0])
    assert np.abs(qpos - rest).max() <= 5e-3 and np.abs(qvel).max() <= 5e-3


def test_arms_start_where_they_should() -> None:
    reacher = vectorise(build("Reacher"), 500)
    reacher.reset()
    target = reacher.physics_state()[0][:, 2:]
    radius = np.linalg.norm(target, axis=1)
    assert radius.max() <= 0.2 and abs((radius < 0.1).mean() - 0.25) < 0.06
    pusher = vectorise(build("Pusher"), 500)
    pusher.reset()
    place = pusher.physics_state()[0][:, 7:9]
    assert np.linalg.norm(place, axis=1).min() > 0.17
    assert place[:, 0].min() >= -0.3 and place[:, 0].max() <= 0.0 and np.abs(place[:, 1]).max() <= 0.2


def test_the_time_limit_is_not_a_termination() -> None:
    env = vectorise(build("HalfCheetah", episode_length=5), 2)
    rows = play(env, 6)
    assert [int(row.last[0]) for row in rows] == [0, 0, 0, 0, 0, 1, 0]
    assert not any(bool(row.terminal.any()) for row in rows)
    assert bool(rows[-1].first.all()) and rows[-1].reward.tolist() == [0.0, 0.0]


def test_actions_are_clipped() -> None:
    one, other = (vectorise(build("Walker2d"), 2) for _ in range(2))
    one.reset(), other.reset()
    wild = torch.full((2, 2, 3), 3.0)
    a, b = one.step(wild), other.step(wild.clamp(-1, 1))
    assert torch.equal(a.state, b.state) and torch.equal(a.reward, b.reward)


def test_set_physics_state_moves_only_environments_that_differ() -> None:
    env = vectorise(build("Ant"), 3)
    play(env, 10)
    qpos, qvel = env.physics_state()
    forces = env.engine.field("cfrc_ext").clone()
    qpos[1, 2] += 0.01
    row = env.set_physics_state(qpos, qvel)
    assert row.first.tolist() == [False, True, False]
    now = env.physics_state()
    np.testing.assert_array_equal(now[0], qpos)
    np.testing.assert_array_equal(now[1], qvel)
    assert torch.equal(env.engine.field("cfrc_ext")[[0, 2]], forces[[0, 2]])
    assert not env.engine.field("cfrc_ext")[1].any()
    with pytest.raises(ValueError, match="must be"):
        env.set_physics_state(qpos[:, :-1], qvel)


# mean and half-width of first episodes under uniform actions, as measured on MuJoCo 4.0 with 300 episodes and more
RANDOM_PLAY = {
    "Ant": (-51.5, 7.8),
    "Hopper": (18.4, 1.1),
    "Walker2d": (2.0, 0.4),
    "Humanoid": (111.3, 1.8),
    "Swimmer": (-0.1, 0.7),
    "HalfCheetah": (-282.8, 4.7),
}
EPISODES = {"Ant": 16, "Hopper": 300, "Walker2d": 300, "Humanoid": 100, "Swimmer": 24, "HalfCheetah": 24}


@pytest.mark.slow
@pytest.mark.parametrize("scenario", RANDOM_PLAY)
def test_random_play_earns_what_it_should(scenario: str) -> None:
    count = EPISODES[scenario]
    env = vectorise(build(scenario, episode_length=1000), count, threads=2)
    dims = env.spec.dims
    draws = torch.Generator().manual_seed(0)
    env.reset()
    total, running = torch.zeros(count, dtype=torch.float64), torch.ones(count, dtype=torch.bool)
    ticks = 0
    while bool(running.any()) and ticks < 1000:
        row = env.step(torch.rand(count, dims.agents, dims.action, generator=draws) * 2 - 1)
        total += torch.where(running, row.reward, 0.0)
        running &= ~row.last
        ticks += 1
    mean, width = RANDOM_PLAY[scenario]
    error = float(total.std()) / count**0.5
    assert abs(float(total.mean()) - mean) < width + 3.0 * error


def test_make_reaches_the_partition() -> None:
    env = make("HalfCheetah", agent_conf="3x2", agent_obsk=1, num_envs=2, engine="mujoco", seed=0)
    assert (env.spec.dims.agents, env.spec.dims.action, env.spec.dims.obs) == (3, 2, 12)
    assert env.reset().obs.dtype == torch.float32
    assert any("v5" in note for note in env.spec.notes)


@pytest.mark.parametrize(("name", "followed"), [("HalfCheetah", "torso"), ("Humanoid", "torso"), ("Reacher", None)])
def test_pictures_follow_what_walks(name: str, followed: str | None) -> None:
    scene = make(name, num_envs=1, engine="mujoco").engine.scene
    model = compile_visuals(scene)
    view = camera(scene, model)
    assert (view.type == mujoco.mjtCamera.mjCAMERA_TRACKING) is (followed is not None)
    if followed:
        assert model.body(view.trackbodyid).name == followed and view.distance >= 4.0
        data, drawn = mujoco.MjData(model), mujoco.MjvScene(model, maxgeom=500)
        seen = []
        for walked in (0.0, 30.0):
            data.qpos[0] = walked
            mujoco.mj_forward(model, data)
            args = model, data, mujoco.MjvOption(), None, view, mujoco.mjtCatBit.mjCAT_ALL, drawn
            mujoco.mjv_updateScene(*args)
            eye = np.mean([drawn.camera[side].pos for side in range(2)], axis=0)
            seen.append(eye - data.body(followed).xpos)
        assert np.abs(seen[1] - seen[0]).max() < 0.05
        assert 0.8 * view.distance < np.linalg.norm(seen[1]) < 1.2 * view.distance


def test_pictures_have_a_floor_wherever_a_robot_walks() -> None:
    engine = make("Ant", num_envs=1, engine="mujoco").engine
    pictures = compile_visuals(engine.scene)
    floor, material = pictures.geom("floor"), pictures.material("MatPlane")
    assert floor.size[0] == floor.size[1] == 0.0  # MuJoCo's word for endless
    assert material.texuniform and material.texrepeat[0] == 60.0 / 80.0  # squares of the same size
    assert engine.model.geom("floor").size[0] == 40.0
    arm = compile_visuals(make("Pusher", num_envs=1, engine="mujoco").engine.scene)
    assert arm.geom("table").size[0] == 1.0


@pytest.mark.parametrize(("name", "ticks"), [("HalfCheetah", 1000), ("Reacher", 50), ("Pusher", 100)])
def test_the_benchmarks_clock_is_kept_unless_another_is_asked_for(name: str, ticks: int) -> None:
    assert build(name, episode_length=0).spec.episode_length == ticks
    assert build(name, episode_length=7).spec.episode_length == 7


def test_a_step_in_float32_is_float32_throughout() -> None:
    row = play(make("Ant", num_envs=2, engine="mujoco"), 1)[-1]
    assert {row.state.dtype, row.obs.dtype, row.reward.dtype} == {torch.float32}


def test_a_change_of_velocity_alone_moves_an_environment() -> None:
    env = vectorise(build("HalfCheetah"), 2)
    env.reset()
    qpos, qvel = env.physics_state()
    qvel[1, 0] += 1.0
    assert env.set_physics_state(qpos, qvel).first.tolist() == [False, True]
    np.testing.assert_array_equal(env.physics_state()[1], qvel)


@pytest.mark.parametrize(("scenario", "hidden"), [("HalfCheetah", 1), ("Ant", 2), ("Humanoid", 2), ("Swimmer", 2)])
def test_a_state_can_be_put_back_and_the_robot_goes_on_from_where_it_is(scenario: str, hidden: int) -> None:
    env, stage = vectorise(build(scenario), 2), vectorise(build(scenario), 2, seed=9)
    seen = play(env, 12)[-1].state
    stage.reset()
    before, _ = stage.physics_state()
    stage.task.pose(stage.engine, seen)
    stage.engine.refresh(torch.ones(2, dtype=torch.bool))
    qpos, qvel = stage.physics_state()
    shown = qpos.shape[1] - hidden + qvel.shape[1]
    np.testing.assert_allclose(stage.task.state(stage.engine)[:, :shown], seen[:, :shown], atol=1e-12)
    np.testing.assert_allclose(qpos[:, :hidden], before[:, :hidden] + env.spec.control_dt * qvel[:, :hidden])


def test_an_arms_state_does_not_determine_its_pose() -> None:
    env = vectorise(build("Reacher"), 1)
    with pytest.raises(UsageError, match="cannot draw task Reacher"):
        env.task.pose(env.engine, env.reset().state)
