"""Every engine: conventions, staged writes, masked resets, broken environments, continuation, raw files."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from dima_isaac.errors import SimulationError, UsageError
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.rotations import from_rpy, quat_conj, rotate
from dima_isaac.sim.scene import Actor, Mjcf, Scene
from tests.sim.quaternions import quat_mul
from tests.sim.toss import (
    BALL,
    BOX,
    KINDS,
    LOPSIDED,
    MARK,
    PENDULUM,
    TOSS,
    VIEWS,
    build,
    drive,
    everywhere,
    on,
    only,
    pose,
    same,
    views,
)

pytestmark = pytest.mark.timeout(1200)  # the first run on a machine compiles Warp's kernels


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def toss(kind: str):
    """A function that builds the small world on the engine under test."""
    return lambda envs=4, **cfg: build(kind, TOSS, envs, **cfg)


class TestConventions:
    """What the thirteen numbers of a frame mean, on a spinning, flying body whose mass is off its origin."""

    COM = (0.3, -0.1, 0.2)  # in the asset's body

    @pytest.fixture
    def flight(self, kind: str) -> tuple[Engine, torch.Tensor]:
        stick = Actor("stick", Mjcf(xml=LOPSIDED), gravity=False)
        scene = Scene(actors=[stick], links=["stick/stick"], control_dt=1e-3, ground=False)
        engine = build(kind, scene, 1, substeps=1)
        twist = [0.4, -0.2, 0.9, 1.5, -2.0, 0.7]
        start = on(engine, [[0.1, 0.2, -0.1, *from_rpy(0.3, -0.7, 1.1), *twist]])
        engine.set_root_state(everywhere(engine), 0, start)
        engine.refresh(everywhere(engine))
        return engine, start

    def test_a_written_root_is_read_back(self, flight: tuple[Engine, torch.Tensor]) -> None:
        engine, start = flight
        assert torch.allclose(engine.root_state[:, 0], start, atol=1e-6)

    def test_the_asset_turns_inside_the_actor(self, flight: tuple[Engine, torch.Tensor]) -> None:
        engine, start = flight
        asset = on(engine, [[0.6, 0.0, 0.0, 0.8]])
        assert torch.allclose(engine.body_state[:, 0, 3:7], quat_mul(start[:, 3:7], asset), atol=1e-6)

    def test_velocities_are_finite_differences(self, flight: tuple[Engine, torch.Tensor]) -> None:
        engine, start = flight
        frames = [engine.body_state[0, 0].double()]
        for _ in range(2):
            engine.step(everywhere(engine, False))
            frames.append(engine.body_state[0, 0].double())
        before, now, after = frames
        span = 2.0 * engine.control_dt
        com = on(engine, list(self.COM)).double()
        centre = [frame[:3] + rotate(frame[3:7], com) for frame in (before, after)]
        speed = (centre[1] - centre[0]) / span
        assert torch.allclose(speed, start[0, 7:10].double(), atol=1e-3)  # linear: of the centre of mass
        assert torch.allclose(now[7:10], speed, atol=1e-3)
        origin = (after[:3] - before[:3]) / span
        assert (origin - speed).norm() > 0.1  # and not of the link's origin
        turn = quat_mul(after[3:7], quat_conj(before[3:7]))
        assert torch.allclose(2.0 * turn[:3] / span, now[10:], atol=2e-3)  # angular: world axes

    def test_the_actor_and_its_link_move_together(self, flight: tuple[Engine, torch.Tensor]) -> None:
        engine, _ = flight
        engine.step(everywhere(engine, False))
        assert torch.allclose(engine.root_state[:, 0, 7:], engine.body_state[:, 0, 7:], atol=1e-6)
        assert torch.allclose(engine.root_state[:, 0, :3], engine.body_state[:, 0, :3], atol=1e-6)


def test_every_view_keeps_its_address(toss) -> None:
    engine = toss()
    before = [getattr(engine, name).data_ptr() for name in VIEWS]
    drive(engine, 2)
    assert [getattr(engine, name).data_ptr() for name in VIEWS] == before
    assert engine.body_state.dtype == engine.dof_pos.dtype == torch.float32
    assert all(getattr(engine, name).device.type == engine.device.type for name in VIEWS)
    assert engine.body_state.shape == (4, 2, 13) and engine.root_state.shape == (4, 4, 13)


def test_the_first_views_are_those_of_the_scene(toss) -> None:
    engine = toss(2)
    assert torch.allclose(engine.root_state[:, BALL], pose(engine, 0.0, 0.0, 0.3), atol=1e-6)
    assert torch.allclose(engine.root_state[:, MARK], pose(engine, 0.0, 0.2, 0.3), atol=1e-6)
    assert torch.allclose(engine.body_state[:, 0, :3], on(engine, [0.5, 0.0, 0.6]).expand(2, -1), atol=1e-6)
    assert not engine.bad.any() and all(int(value) == 0 for value in engine.stats().values())


def test_the_contact_force_of_a_resting_ball_is_its_weight(toss) -> None:
    engine = toss(1)
    drive(engine, 90)
    weight = 500.0 * 4.0 / 3.0 * math.pi * 0.05**3 * 9.81
    force = rotate(engine.body_state[0, 1, 3:7], engine.force_sensor[0, 0, :3])
    assert torch.allclose(force, on(engine, [0.0, 0.0, weight]), atol=0.02 * weight)
    assert float(engine.root_state[0, BALL, 2]) == pytest.approx(0.25, abs=2e-3)


def test_a_wrench_is_about_the_links_origin(kind: str) -> None:
    """A box pushed sideways on its top tips its pressure: the contact torque balances the push about the origin."""
    scene = Scene(actors=[Actor("box", Mjcf(xml=BOX), pos=(0.0, 0.0, 0.1), wrench="box")], force_sensors=["box/box"])
    engine = build(kind, scene, 1)
    for _ in range(120):
        engine.apply_force(0, on(engine, [[2.0, 0.0, 0.0]]), on(engine, [[0.0, 1.0, 0.0]]))
        engine.step(everywhere(engine, False))
    wrench = engine.force_sensor[0, 0]
    assert torch.allclose(wrench[:3], on(engine, [-2.0, 0.0, 2.0 * 9.81]), atol=0.05)
    assert torch.allclose(wrench[3:], on(engine, [0.0, -1.0, 0.0]), atol=0.05)


def test_a_force_lasts_one_step(kind: str) -> None:
    scene = Scene(actors=[Actor("box", Mjcf(xml=BOX), pos=(0, 0, 5.0), gravity=False, wrench="box")], ground=False)
    engine = build(kind, scene, 2)
    engine.apply_force(0, on(engine, [[6.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), on(engine, [[0.0] * 3] * 2))
    engine.refresh(everywhere(engine, False))  # it waits for a step
    for _ in range(3):
        engine.step(everywhere(engine, False))
    assert engine.root_state[:, 0, 7].tolist() == pytest.approx([6.0 / 2.0 / 60.0, 0.0], abs=1e-6)


def test_damping_has_the_reference_engines_steady_speed(kind: str) -> None:
    """v <- (v + F h / m)(1 - c h) settles at F (1 - c h) / (m c)."""
    actor = Actor("box", Mjcf(xml=BOX), pos=(0, 0, 5.0), gravity=False, wrench="box", damping=(100.0, 100.0))
    engine = build(kind, Scene(actors=[actor], ground=False), 1)
    for _ in range(20):
        engine.apply_force(0, on(engine, [[80.0, 0.0, 0.0]]), on(engine, [[0.0] * 3]))
        engine.step(everywhere(engine, False))
    assert float(engine.root_state[0, 0, 7]) == pytest.approx(80.0 * (1.0 - 100.0 / 120.0) / (2.0 * 100.0), rel=1e-3)


def test_damping_takes_its_part_of_an_applied_force_at_a_standstill_too(kind: str) -> None:
    """A damped box is pressed down with 120 N: the ground feels (1 - c h) of it, a sixth."""
    actor = Actor("box", Mjcf(xml=BOX), pos=(0, 0, 0.1), gravity=False, wrench="box", damping=(100.0, 100.0))
    engine = build(kind, Scene(actors=[actor], force_sensors=["box"]), 1)
    for _ in range(30):
        engine.apply_force(0, on(engine, [[0.0, 0.0, -120.0]]), on(engine, [[0.0] * 3]))
        engine.step(everywhere(engine, False))
    assert float(engine.force_sensor[0, 0, 2]) == pytest.approx(20.0, rel=0.02)


def test_a_refresh_after_loading_leaves_the_others_views_as_they_were_saved(toss) -> None:
    saved, engine = toss(), toss()
    drive(saved, 40)
    drive(engine, 5, seed=9)
    engine.load_state_dict(saved.state_dict())
    mask = only(engine, 1)
    engine.refresh(mask)
    for mine, theirs in zip(views(engine), views(saved), strict=True):
        assert torch.equal(mine[~mask], theirs[~mask])


def test_a_masked_reset_leaves_the_others_alone(toss) -> None:
    touched, control = toss(), toss()
    for engine in (touched, control):
        drive(engine, 20)
    mask = only(touched, 1, 3)
    touched.set_dof_state(mask, torch.full_like(touched.dof_pos, 0.7), torch.zeros_like(touched.dof_vel))
    touched.set_root_state(mask, BALL, pose(touched, 0.1, 0.0, 0.6))
    touched.step(hold=mask)
    control.step(hold=everywhere(control, False))
    for mine, theirs in zip(views(touched), views(control), strict=True):
        assert same(touched, mine[~mask], theirs[~mask])
    assert touched.dof_pos[mask].flatten().tolist() == pytest.approx([0.7, 0.7])
    assert torch.allclose(touched.root_state[:, BALL, :3][mask], on(touched, [0.1, 0.0, 0.6]))
    assert touched.force_sensor[mask].abs().max() == 0.0
    for engine in (touched, control):
        drive(engine, 5, seed=3)
    assert same(touched, touched.root_state[~mask], control.root_state[~mask])


def test_two_masks_of_one_step_add_up(toss) -> None:
    engine = toss(3)
    for env, angle in ((0, 0.3), (2, -0.4)):
        pos = torch.full_like(engine.dof_pos, angle)
        engine.set_dof_state(only(engine, env), pos, torch.zeros_like(pos))
    engine.step(hold=everywhere(engine))
    assert engine.dof_pos.flatten().tolist() == pytest.approx([0.3, 0.0, -0.4])


def test_a_held_environment_stands_still(toss) -> None:
    engine = toss(2)
    drive(engine, 10)
    before = engine.root_state.clone()
    drive(engine, 3, hold=only(engine, 0))
    assert torch.equal(engine.root_state[0], before[0])
    assert not torch.equal(engine.root_state[1], before[1])


def test_a_refresh_takes_no_time(toss) -> None:
    engine = toss(2)
    drive(engine, 10)
    before = engine.body_state.clone()
    engine.refresh(everywhere(engine))
    assert same(engine, engine.body_state, before)


def test_a_target_is_held(toss) -> None:
    engine = toss(1)
    engine.set_dof_target(on(engine, [[0.5]]))
    for _ in range(60):
        engine.step(everywhere(engine, False))
    assert float(engine.dof_force) == pytest.approx(5.0 * (0.5 - float(engine.dof_pos)), rel=1e-3)  # gain times error


def test_a_later_refresh_does_not_bring_old_forces_back(toss) -> None:
    engine = toss(3)
    drive(engine, 90)
    assert engine.force_sensor[0].abs().max() > 1.0
    drive(engine, 1, hold=only(engine, 0))
    engine.refresh(only(engine, 1))
    assert [bool(force.any()) for force in engine.force_sensor] == [False, False, True]
    assert [bool(force.any()) for force in engine.dof_force] == [False, False, True]


def test_a_marker_moves_and_touches_nothing(toss) -> None:
    engine = toss(2)
    onto_ball = engine.root_state[:, BALL].clone()
    engine.set_root_state(only(engine, 0), MARK, onto_ball)
    drive(engine, 5)
    assert torch.equal(engine.root_state[0, MARK, :3], onto_ball[0, :3])
    assert same(engine, engine.root_state[0, BALL], engine.root_state[1, BALL])
    assert engine.root_state[:, MARK, 7:].abs().max() == 0.0


def test_a_fixed_actor_cannot_be_moved(toss) -> None:
    engine = toss(1)
    with pytest.raises(ValueError, match="'table' is fixed"):
        engine.set_root_state(everywhere(engine), 2, torch.zeros(1, 13, device=engine.device))


def test_targets_of_another_shape_are_refused(toss) -> None:
    engine = toss(2)
    with pytest.raises(ValueError, match="targets must be"):
        engine.set_dof_target(torch.zeros(2, 5, device=engine.device))


def poison(engine: Engine, where: str, env: int) -> None:
    """Make one environment non-finite through what a task writes."""
    mask = only(engine, env)
    if where == "dof":
        nan = torch.full_like(engine.dof_pos, math.nan)
        engine.set_dof_state(mask, nan, torch.zeros_like(engine.dof_vel))
    elif where == "root":
        engine.set_root_state(mask, BALL, torch.full_like(engine.root_state[:, BALL], math.nan))
    else:
        engine.set_dof_target(torch.where(mask.unsqueeze(1), math.nan, torch.zeros_like(engine.dof_pos)))


class TestBrokenEnvironments:
    """An environment made non-finite is flagged, touches no other, and restarts clean."""

    @pytest.mark.parametrize("where", ["dof", "root", "target"])
    def test_a_nan_stays_where_it_is(self, toss, where: str) -> None:
        broken, control = toss(8), toss(8)
        for engine in (broken, control):
            drive(engine, 20)
            engine.set_dof_target(torch.zeros_like(engine.dof_pos))
        poison(broken, where, 3)
        for engine in (broken, control):
            engine.step(everywhere(engine, False))
        assert broken.bad.tolist() == [env == 3 for env in range(8)]
        assert int(broken.stats()["nonfinite"]) == 1 and int(control.stats()["nonfinite"]) == 0
        sound = ~broken.bad
        for mine, theirs in zip(views(broken), views(control), strict=True):
            assert same(broken, mine[sound], theirs[sound])
        assert all(torch.isfinite(view).all() for view in views(broken))

    def test_a_restart_after_a_nan_equals_a_restart_without_one(self, toss) -> None:
        broken, control = toss(2), toss(2)
        for engine in (broken, control):
            drive(engine, 20)
        poison(broken, "root", 0)
        drive(broken, 1)
        for engine in (broken, control):
            mask = only(engine, 0)
            engine.set_dof_state(mask, torch.zeros_like(engine.dof_pos), torch.zeros_like(engine.dof_vel))
            engine.set_root_state(mask, BALL, pose(engine, 0.0, 0.0, 0.3))
            engine.set_root_state(mask, MARK, pose(engine, 0.0, 0.2, 0.3))
            engine.refresh(mask)
            drive(engine, 10, seed=9)
        assert not broken.bad.any()
        for mine, theirs in zip(views(broken), views(control), strict=True):
            assert same(broken, mine[0], theirs[0])

    def test_too_fast_is_bad_too(self, toss) -> None:
        engine = toss(3)
        state = pose(engine, 0.0, 0.0, 2.0).clone()
        state[:, 7] = 5e3
        engine.set_root_state(only(engine, 1), BALL, state)
        drive(engine, 1)
        assert engine.bad.tolist() == [False, True, False]

    def test_a_simulation_stops_when_every_environment_breaks(self, toss) -> None:
        engine = toss(2)
        engine.set_dof_target(torch.full_like(engine.dof_pos, math.nan))
        with pytest.raises(SimulationError, match="are the actions finite"):
            for _ in range(20):
                engine.step(everywhere(engine, False))
            engine.stats()


def test_the_same_inputs_give_the_same_bits(toss) -> None:
    first, second = toss(), toss()
    if not first.capabilities.deterministic:
        pytest.skip("this engine does not promise it")
    for engine in (first, second):
        drive(engine, 30)
    for mine, theirs in zip(views(first), views(second), strict=True):
        assert torch.equal(mine, theirs)


def test_a_saved_state_continues(toss) -> None:
    straight, resumed = toss(), toss()
    drive(straight, 25)
    saved = {name: value.clone() for name, value in straight.state_dict().items()}
    drive(resumed, 3, seed=8)
    resumed.load_state_dict(saved)
    for mine, theirs in zip(views(resumed), views(straight), strict=True):
        assert torch.equal(mine, theirs)
    for engine in (straight, resumed):
        drive(engine, 25, seed=2)
    for mine, theirs in zip(views(resumed), views(straight), strict=True):
        assert same(straight, mine, theirs)
    with pytest.raises(ValueError, match=r"has .*, this scene"):
        toss(3).load_state_dict(saved)


def test_substeps_cut_the_control_step(toss) -> None:
    engine = toss(1, substeps=2)
    assert (engine.substeps, engine.control_dt) == (2, pytest.approx(1.0 / 60.0))
    drive(engine, 6)
    fallen = 0.5 * 9.81 * 0.1**2
    assert float(engine.root_state[0, BALL, 2]) == pytest.approx(0.3 - fallen, abs=6e-3)
    assert float(engine.root_state[0, BALL, 9]) == pytest.approx(-0.981, rel=1e-4)


class TestWorld:
    """A whole world in one file, read raw: what mj_step gives, as far as the engine's precision goes."""

    TOLERANCE = {torch.float64: 0.0, torch.float32: 2e-5}  # noqa: RUF012

    @pytest.fixture
    def path(self, tmp_path) -> str:
        file = tmp_path / "world.xml"
        file.write_text(PENDULUM.replace("<worldbody>", '<option timestep="0.01"/><worldbody>'))
        return str(file)

    def test_fields_equal_those_of_mj_step(self, kind: str, path: str) -> None:
        engine = build(kind, Scene(world=path, fields=["qpos", "qvel", "xpos"], frame_skip=5), 3)
        assert engine.control_dt == pytest.approx(0.05)
        start = on(engine, [[0.1], [0.2], [0.3]]).double()
        engine.set_field(everywhere(engine), "qpos", start)
        engine.refresh(everywhere(engine))
        controls = np.random.default_rng(0).uniform(-1, 1, (10, 3, 1))
        for control in controls:
            engine.set_field(everywhere(engine), "ctrl", torch.from_numpy(control).to(engine.device))
            engine.step(everywhere(engine, False))
        bound = self.TOLERANCE[engine.field("qpos").dtype]
        model = mujoco.MjModel.from_xml_path(path)
        for env in range(3):
            data = mujoco.MjData(model)
            data.qpos[:] = start[env].cpu()
            mujoco.mj_forward(model, data)
            for control in controls:
                data.ctrl[:] = control[env]
                mujoco.mj_step(model, data, 5)
            for name in ("qpos", "qvel", "xpos"):
                assert np.abs(engine.field(name)[env].cpu().numpy() - getattr(data, name)).max() <= bound

    def test_writing_positions_starts_anew(self, kind: str, path: str) -> None:
        engine = build(kind, Scene(world=path, fields=["qpos", "qvel", "time", "xpos"], frame_skip=2), 2)
        for _ in range(3):
            engine.set_field(everywhere(engine), "ctrl", on(engine, [[1.0], [1.0]]).double())
            engine.step(everywhere(engine, False))
        stale = engine.field("xpos")[1].clone()
        mask = only(engine, 0)
        engine.set_field(mask, "qpos", torch.full_like(engine.field("qpos"), 0.5))
        engine.refresh(mask)
        # a refresh leaves what the last physics step left elsewhere: one physics step old
        assert torch.equal(engine.field("xpos")[1], stale)
        engine.step(hold=mask)
        assert engine.field("qpos")[0].item() == 0.5 and engine.field("qvel")[0].item() == 0.0
        assert engine.field("time").tolist() == pytest.approx([0.0, 0.08])
        assert float(engine.field("qpos")[1]) != 0.5

    def test_contact_forces_are_those_of_physics_steps_and_none_after_a_start(self, kind: str, tmp_path) -> None:
        file = tmp_path / "ball.xml"
        ball = '<body><freejoint/><geom size=".1"/></body>'
        file.write_text(f'<mujoco><worldbody><geom type="plane" size="1 1 1"/>{ball}</worldbody></mujoco>')
        engine = build(kind, Scene(world=str(file), fields=["qpos", "cfrc_ext"], frame_skip=2), 2)
        down = on(engine, [[0.0, 0.0, 0.095, 1.0, 0.0, 0.0, 0.0]] * 2).double()  # 5 mm in the floor
        engine.set_field(everywhere(engine), "qpos", down)
        engine.refresh(everywhere(engine))
        assert not engine.field("cfrc_ext").any()
        engine.set_field(only(engine, 0), "qpos", down)
        engine.step(only(engine, 0))
        assert not engine.field("cfrc_ext")[0].any() and engine.field("cfrc_ext")[1, 1, 5] > 10.0

    def test_constants_are_the_models(self, kind: str, path: str) -> None:
        engine = build(kind, Scene(world=path, fields=["qpos"], frame_skip=1), 1)
        assert engine.constant("actuator_ctrlrange").tolist() == [[-2.0, 2.0]]
        assert engine.body_names == ("world", "base", "arm")

    def test_an_unknown_field_names_the_known(self, kind: str, path: str) -> None:
        engine = build(kind, Scene(world=path, fields=["qpos"], frame_skip=1), 1)
        with pytest.raises(KeyError, match=r"xquat.*qpos"):
            engine.field("xquat")


def test_an_unknown_link_names_the_known(kind: str) -> None:
    scene = Scene(actors=[Actor("rig", Mjcf(xml=PENDULUM), fixed=True)], links=["rig/leg"])
    with pytest.raises(UsageError, match=r"no link 'rig/leg'.*rig/arm"):
        build(kind, scene, 1)


def test_a_picture_shows_the_environment_asked_for(toss) -> None:
    engine = toss(2)
    engine.set_root_state(only(engine, 1), BALL, pose(engine, 3.0, 3.0, 0.3))
    engine.refresh(everywhere(engine))
    try:
        first, second = engine.render(0, 64, 48), engine.render(1, 64, 48)
    except UsageError as error:
        pytest.skip(str(error))
    finally:
        engine.close()
    assert first.shape == (48, 64, 3) and first.dtype.name == "uint8"
    assert (first != second).any() and first.std() > 1.0
