"""The CPU engine: conventions against finite differences, masks, quarantine, bit-exact continuation."""

from __future__ import annotations

import importlib
import math
import sys

import pytest
import torch

from dima_isaac.errors import SimulationError, UsageError
from dima_isaac.sim.config import MujocoConfig, Pace
from dima_isaac.sim.engine_mujoco import MujocoEngine
from dima_isaac.sim.render import Viewer
from dima_isaac.sim.rotations import from_rpy, quat_conj, quat_mul, rotate
from dima_isaac.sim.scene import Actor, Box, Ellipsoid, Mjcf, Scene

LOPSIDED = """<mujoco><worldbody><body name="stick" quat="0.8 0.6 0 0">
<inertial pos="0.3 -0.1 0.2" mass="2" diaginertia="0.02 0.03 0.04"/>
<geom name="g" size="0.01" contype="0" conaffinity="0"/>
</body></worldbody></mujoco>"""

PENDULUM = """<mujoco><worldbody><body name="base"><geom size="0.02" mass="1"/>
<body name="arm" pos="0 0 0.1"><joint name="swing" axis="0 1 0" range="-2 2" damping="0.1" limited="true"/>
<geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.01" mass="0.5"/></body></body></worldbody>
<actuator><position name="drive" joint="swing" kp="5" ctrlrange="-2 2" ctrllimited="true"/></actuator></mujoco>"""


def everywhere(engine: MujocoEngine, value: bool = True) -> torch.Tensor:
    return torch.full((engine.num_envs,), value, dtype=torch.bool)


def toss(envs: int = 4, **cfg) -> MujocoEngine:
    """A pendulum, a ball that falls on a box, and a ghost: everything an engine has, in a small world."""
    scene = Scene(
        actors=[
            Actor("rig", Mjcf(xml=PENDULUM), pos=(0.5, 0.0, 0.5), fixed=True),
            Actor("ball", Ellipsoid((0.05, 0.05, 0.05)), pos=(0.0, 0.0, 0.3)),
            Actor("table", Box((0.4, 0.4, 0.2)), pos=(0.0, 0.0, 0.1), fixed=True),
            Actor("mark", Ellipsoid((0.02, 0.02, 0.02)), pos=(0.0, 0.2, 0.3), ghost=True),
        ],
        links=["rig/arm", "ball"],
        force_sensors=["ball"],
    )
    return MujocoEngine(scene, envs, MujocoConfig(**{"threads": 1, **cfg}))


def views(engine: MujocoEngine) -> list[torch.Tensor]:
    names = ("root_state", "dof_pos", "dof_vel", "dof_force", "body_state", "force_sensor", "bad")
    return [getattr(engine, name).clone() for name in names]


def drive(engine: MujocoEngine, steps: int, seed: int = 0, hold: torch.Tensor | None = None) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        engine.set_dof_target(2.0 * torch.rand(engine.num_envs, 1, generator=generator) - 1.0)
        engine.step(everywhere(engine, False) if hold is None else hold)


class TestConventions:
    """What the thirteen numbers of a frame mean, on a spinning, flying body whose mass is off its origin."""

    @pytest.fixture(scope="class")
    def flight(self) -> tuple[MujocoEngine, torch.Tensor]:
        stick = Actor("stick", Mjcf(xml=LOPSIDED), pos=(0.0, 0.0, 5.0), gravity=False)
        scene = Scene(actors=[stick], links=["stick/stick"], control_dt=1e-4, ground=False)
        engine = MujocoEngine(scene, 1, MujocoConfig(threads=1, substeps=1))
        quat = torch.tensor([from_rpy(0.3, -0.7, 1.1)])
        twist = torch.tensor([[0.4, -0.2, 0.9, 1.5, -2.0, 0.7]])
        start = torch.cat([torch.tensor([[1.0, 2.0, 5.0]]), quat, twist], 1)
        engine.set_root_state(everywhere(engine), 0, start)
        engine.refresh(everywhere(engine))
        return engine, start

    def test_a_written_root_is_read_back(self, flight: tuple[MujocoEngine, torch.Tensor]) -> None:
        engine, start = flight
        assert torch.allclose(engine.root_state[:, 0], start, atol=1e-6)

    def test_the_asset_turns_inside_the_actor(self, flight: tuple[MujocoEngine, torch.Tensor]) -> None:
        engine, start = flight
        asset = torch.tensor([[0.6, 0.0, 0.0, 0.8]])
        assert torch.allclose(engine.body_state[:, 0, 3:7], quat_mul(start[:, 3:7], asset), atol=1e-6)

    def test_velocities_are_finite_differences(self, flight: tuple[MujocoEngine, torch.Tensor]) -> None:
        engine, start = flight
        engine.set_root_state(everywhere(engine), 0, start)
        engine.refresh(everywhere(engine))
        com = torch.tensor([[0.3, -0.1, 0.2]])
        before = engine.body_state[:, 0].double().clone()
        exact = engine.batch.bind("xipos")[:, -1].copy(), engine.batch.bind("xquat")[:, -1].copy()
        engine.step(everywhere(engine, False))
        after = engine.batch.bind("xipos")[:, -1].copy(), engine.batch.bind("xquat")[:, -1].copy()
        speed = torch.from_numpy(after[0] - exact[0]) / engine.control_dt
        assert torch.allclose(speed, start[:, 7:10].double(), atol=1e-3)  # linear: at the centre of mass
        assert not torch.allclose(
            (engine.body_state[:, 0, :3].double() - before[:, :3]) / engine.control_dt, speed, atol=0.05
        )  # and not at the link's origin
        step = quat_mul(
            torch.from_numpy(after[1][:, [1, 2, 3, 0]]), quat_conj(torch.from_numpy(exact[1][:, [1, 2, 3, 0]]))
        )
        spin = 2.0 * step[:, :3] / engine.control_dt
        assert torch.allclose(spin, start[:, 10:].double(), atol=2e-3)  # angular: world axes
        origin = before[:, :3] + rotate(before[:, 3:7], com.double())
        assert torch.allclose(origin, torch.from_numpy(exact[0]), atol=1e-6)


def test_every_view_keeps_its_address() -> None:
    engine = toss()
    names = ("root_state", "dof_pos", "dof_vel", "dof_force", "body_state", "force_sensor", "bad")
    before = [getattr(engine, name).data_ptr() for name in names]
    drive(engine, 2)
    assert [getattr(engine, name).data_ptr() for name in names] == before
    assert engine.body_state.dtype == engine.dof_pos.dtype == torch.float32


def test_a_resting_ball_feels_its_weight() -> None:
    engine = toss(1)
    drive(engine, 90)
    weight = 500.0 * 4.0 / 3.0 * math.pi * 0.05**3 * 9.81
    quat = engine.body_state[0, 1, 3:7]
    force = rotate(quat, engine.force_sensor[0, 0, :3])
    assert torch.allclose(force, torch.tensor([0.0, 0.0, weight]), atol=0.02 * weight)
    assert engine.root_state[0, 1, 2] == pytest.approx(0.25, abs=2e-3)


def test_a_wrench_is_about_the_links_origin() -> None:
    """A box pushed sideways on its top tips its pressure: the contact torque balances the push about the origin."""
    scene = Scene(actors=[Actor("box", Mjcf(xml=PUSHED), pos=(0.0, 0.0, 0.1), wrench="box")], force_sensors=["box/box"])
    engine = MujocoEngine(scene, 1, MujocoConfig(threads=1))
    for _ in range(120):
        engine.apply_force(0, torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
        engine.step(everywhere(engine, False))
    wrench = engine.force_sensor[0, 0]
    weight = 2.0 * 9.81
    assert torch.allclose(wrench[:3], torch.tensor([-2.0, 0.0, weight]), atol=0.05)
    assert torch.allclose(wrench[3:], torch.tensor([0.0, -1.0, 0.0]), atol=0.05)


PUSHED = (
    """<mujoco><worldbody><body name="box"><geom type="box" size="0.1 0.1 0.1" mass="2"/></body></worldbody></mujoco>"""
)


def test_a_force_lasts_one_step() -> None:
    scene = Scene(actors=[Actor("box", Mjcf(xml=PUSHED), pos=(0, 0, 5.0), gravity=False, wrench="box")], ground=False)
    engine = MujocoEngine(scene, 2, MujocoConfig(threads=1))
    force = torch.tensor([[6.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    engine.apply_force(0, force, torch.zeros(2, 3))
    for _ in range(3):
        engine.step(everywhere(engine, False))
    assert engine.root_state[:, 0, 7] == pytest.approx([6.0 / 2.0 / 60.0, 0.0], abs=1e-6)


def test_damping_has_the_reference_engines_steady_speed() -> None:
    """v <- (v + F h / m)(1 - c h) settles at F (1 - c h) / (m c)."""
    actor = Actor("box", Mjcf(xml=PUSHED), pos=(0, 0, 5.0), gravity=False, wrench="box", damping=(100.0, 100.0))
    engine = MujocoEngine(Scene(actors=[actor], ground=False), 1, MujocoConfig(threads=1))
    for _ in range(20):
        engine.apply_force(0, torch.tensor([[80.0, 0.0, 0.0]]), torch.zeros(1, 3))
        engine.step(everywhere(engine, False))
    assert float(engine.root_state[0, 0, 7]) == pytest.approx(80.0 * (1.0 - 100.0 / 120.0) / (2.0 * 100.0), rel=1e-3)


def test_damping_takes_its_part_of_an_applied_force_at_a_standstill_too() -> None:
    """A damped box is pressed down with 120 N: the ground feels (1 - c h) of it, a sixth."""
    actor = Actor(
        "box", Mjcf(xml=PUSHED), pos=(0, 0, 0.1), gravity=False, wrench="box", damping=(100.0, 100.0)
    )
    engine = MujocoEngine(Scene(actors=[actor], force_sensors=["box"]), 1, MujocoConfig(threads=1))
    for _ in range(30):
        engine.apply_force(0, torch.tensor([[0.0, 0.0, -120.0]]), torch.zeros(1, 3))
        engine.step(everywhere(engine, False))
    assert float(engine.force_sensor[0, 0, 2]) == pytest.approx(20.0, rel=0.02)


def test_a_masked_reset_leaves_the_others_bit_identical() -> None:
    touched, control = toss(), toss()
    for engine in (touched, control):
        drive(engine, 20)
    mask = torch.tensor([False, True, False, True])
    touched.set_dof_state(mask, torch.full((4, 1), 0.7), torch.zeros(4, 1))
    state = torch.tensor([[0.1, 0.0, 0.6, 0.0, 0.0, 0.0, 1.0] + [0.0] * 6]).expand(4, -1)
    touched.set_root_state(mask, 1, state)
    touched.step(hold=mask)
    control.step(hold=everywhere(control, False))
    for mine, theirs in zip(views(touched), views(control), strict=True):
        assert torch.equal(mine[~mask], theirs[~mask])
    assert touched.dof_pos[mask].flatten().tolist() == pytest.approx([0.7, 0.7])
    assert torch.allclose(touched.root_state[mask, 1, :3], torch.tensor([0.1, 0.0, 0.6]))
    assert touched.force_sensor[mask].abs().max() == 0.0
    for engine in (touched, control):
        drive(engine, 5, seed=3)
    assert torch.equal(touched.root_state[~mask], control.root_state[~mask])


def test_a_later_refresh_does_not_bring_old_forces_back() -> None:
    engine = toss(3)
    drive(engine, 90)
    assert engine.force_sensor[0].abs().max() > 1.0
    drive(engine, 1, hold=torch.tensor([True, False, False]))
    engine.refresh(torch.tensor([False, True, False]))
    assert [bool(force.any()) for force in engine.force_sensor] == [False, False, True]
    assert [bool(force.any()) for force in engine.dof_force] == [False, False, True]


def test_a_ghost_moves_and_touches_nothing() -> None:
    engine = toss(2)
    onto_ball = engine.root_state[:, 1].clone()
    engine.set_root_state(torch.tensor([True, False]), 3, onto_ball)
    drive(engine, 5)
    assert torch.equal(engine.root_state[0, 3, :3], onto_ball[0, :3])
    assert torch.equal(engine.root_state[0, 1], engine.root_state[1, 1])
    assert engine.root_state[:, 3, 7:].abs().max() == 0.0


def test_a_fixed_actor_cannot_be_moved() -> None:
    engine = toss(1)
    with pytest.raises(ValueError, match="'table' is fixed"):
        engine.set_root_state(everywhere(engine), 2, torch.zeros(1, 13))


@pytest.mark.parametrize(("threads", "persistent"), [(2, True), (3, False)])
def test_thread_count_and_memory_mode_change_no_bit(threads: int, persistent: bool) -> None:
    reference, other = toss(7, persistent=True), toss(7, threads=threads, persistent=persistent)
    for engine in (reference, other):
        drive(engine, 30)
    for mine, theirs in zip(views(other), views(reference), strict=True):
        assert torch.equal(mine, theirs)


class TestQuarantine:
    """An environment made non-finite is flagged, touches no other, and restarts clean."""

    @pytest.mark.parametrize("field", ["qpos", "qvel", "xfrc_applied"])
    def test_a_nan_stays_where_it_is(self, field: str) -> None:
        broken, control = toss(8), toss(8)
        for engine in (broken, control):
            drive(engine, 20)
        broken.batch.bind(field)[3] = float("nan")
        for engine in (broken, control):
            drive(engine, 1, seed=5)
        assert broken.bad.tolist() == [env == 3 for env in range(8)]
        assert int(broken.stats()["nonfinite"]) == 1
        sound = ~broken.bad
        for mine, theirs in zip(views(broken), views(control), strict=True):
            assert torch.equal(mine[sound], theirs[sound])
        assert all(torch.isfinite(view).all() for view in views(broken))

    def test_a_restart_after_a_nan_equals_a_restart_without_one(self) -> None:
        broken, control = toss(2), toss(2)
        for engine in (broken, control):
            drive(engine, 20)
        broken.batch.bind("qvel")[0] = float("inf")
        drive(broken, 1)
        for engine in (broken, control):
            mask = torch.tensor([True, False])
            engine.set_dof_state(mask, torch.zeros(2, 1), torch.zeros(2, 1))
            for actor, pose in ((1, [0.0, 0.0, 0.3]), (3, [0.0, 0.2, 0.3])):
                state = torch.tensor([pose + [0.0, 0.0, 0.0, 1.0] + [0.0] * 6]).expand(2, -1)
                engine.set_root_state(mask, actor, state)
            engine.refresh(mask)
            drive(engine, 10, seed=9)
        assert not broken.bad.any()
        for mine, theirs in zip(views(broken), views(control), strict=True):
            assert torch.equal(mine[0], theirs[0])

    def test_too_fast_is_bad_too(self) -> None:
        engine = toss(3)
        engine.batch.bind("qvel")[1, :3] = 5e3
        drive(engine, 1)
        assert engine.bad.tolist() == [False, True, False]

    def test_a_hopeless_simulation_stops(self) -> None:
        engine = toss(2)
        engine.set_dof_target(torch.full((2, 1), float("nan")))
        with pytest.raises(SimulationError, match="are the actions finite"):
            for _ in range(20):
                engine.step(everywhere(engine, False))


@pytest.mark.parametrize("persistent", [True, False])
def test_a_saved_state_continues_bit_for_bit(persistent: bool) -> None:
    straight = toss(4, persistent=persistent)
    drive(straight, 25)
    saved = {name: value.clone() for name, value in straight.state_dict().items()}
    resumed = toss(4, persistent=persistent, threads=2)
    drive(resumed, 3, seed=8)
    resumed.load_state_dict(saved)
    for mine, theirs in zip(views(resumed), views(straight), strict=True):
        assert torch.equal(mine, theirs)
    for engine in (straight, resumed):
        drive(engine, 25, seed=2)
    for mine, theirs in zip(views(resumed), views(straight), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(ValueError, match="has shape"):
        toss(3).load_state_dict(saved)


def test_paces_cut_the_control_step() -> None:
    assert [MujocoConfig(pace=pace).steps for pace in (Pace.standard, Pace.fast)] == [4, 2]
    engine = toss(1, pace=Pace.fast)
    assert (engine.substeps, engine.control_dt) == (2, pytest.approx(1.0 / 60.0))
    assert engine.model.opt.timestep == pytest.approx(1.0 / 120.0)


class TestWorld:
    """A whole world in one file, read raw: bit for bit what plain stepping gives."""

    @pytest.fixture
    def path(self, tmp_path) -> str:
        file = tmp_path / "world.xml"
        body = PENDULUM.replace("<worldbody>", '<option timestep="0.01"/><worldbody>')
        file.write_text(body)
        return str(file)

    def test_fields_equal_plain_stepping(self, path: str) -> None:
        import mujoco
        import numpy as np

        engine = MujocoEngine(
            Scene(world=path, fields=["qpos", "qvel", "xpos"], frame_skip=5), 3, MujocoConfig(threads=2)
        )
        assert engine.control_dt == pytest.approx(0.05)
        start = torch.tensor([[0.1], [0.2], [0.3]], dtype=torch.float64)
        engine.set_field(everywhere(engine), "qpos", start)
        engine.refresh(everywhere(engine))
        model = mujoco.MjModel.from_xml_path(path)
        for env in range(3):
            data = mujoco.MjData(model)
            data.qpos[:] = start[env]
            mujoco.mj_forward(model, data)
            if env == 0:
                rng = np.random.default_rng(0)
                controls = rng.uniform(-1, 1, (10, 3, 1))
                for control in controls:
                    engine.set_field(everywhere(engine), "ctrl", torch.from_numpy(control))
                    engine.step(everywhere(engine, False))
            for control in controls:
                data.ctrl[:] = control[env]
                mujoco.mj_step(model, data, 5)
            assert engine.field("qpos").dtype == torch.float64
            for name in ("qpos", "qvel", "xpos"):
                assert np.array_equal(engine.field(name)[env].numpy(), getattr(data, name))

    def test_writing_positions_starts_anew(self, path: str) -> None:
        engine = MujocoEngine(
            Scene(world=path, fields=["qpos", "qvel", "time"], frame_skip=2), 2, MujocoConfig(threads=1)
        )
        for _ in range(3):
            engine.step(everywhere(engine, False))
        mask = torch.tensor([True, False])
        engine.set_field(mask, "qpos", torch.full((2, 1), 0.5, dtype=torch.float64))
        engine.step(hold=mask)
        assert engine.field("qpos")[0].item() == 0.5 and engine.field("qvel")[0].item() == 0.0
        assert engine.field("time").tolist() == pytest.approx([0.0, 0.08])

    def test_an_unknown_field_names_the_known(self, path: str) -> None:
        engine = MujocoEngine(Scene(world=path, fields=["qpos"], frame_skip=1), 1, MujocoConfig(threads=1))
        with pytest.raises(KeyError, match=r"xquat.*qpos"):
            engine.field("xquat")


def test_an_unknown_link_names_the_known() -> None:
    scene = Scene(actors=[Actor("rig", Mjcf(xml=PENDULUM), fixed=True)], links=["rig/leg"])
    with pytest.raises(UsageError, match=r"no link 'rig/leg'.*rig/arm"):
        MujocoEngine(scene, 1, MujocoConfig(threads=1))


def test_a_picture_shows_the_environment_asked_for() -> None:
    engine = toss(2)
    away = torch.tensor([[3.0, 3.0, 0.3, 0.0, 0.0, 0.0, 1.0] + [0.0] * 6]).expand(2, -1)
    engine.set_root_state(torch.tensor([False, True]), 1, away)
    engine.refresh(everywhere(engine))
    try:
        first, second = engine.render(0, 64, 48), engine.render(1, 64, 48)
    except UsageError as error:
        pytest.skip(str(error))
    finally:
        engine.close()
    assert first.shape == (48, 64, 3) and first.dtype.name == "uint8"
    assert (first != second).any() and first.std() > 1.0


def test_a_viewer_without_a_display_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(UsageError, match="DISPLAY is not set"):
        Viewer(toss(1))


@pytest.mark.skipif(sys.platform != "linux", reason="only X11 and Wayland name their display")
def test_a_display_that_does_not_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(UsageError, match="the viewer needs a display: X11: Failed to open display :987"):
        Viewer(toss(1))


@pytest.mark.parametrize(
    ("chosen", "broken", "said"),
    [
        ("disable", False, "MUJOCO_GL=disable forbids pictures"),
        ("glfw", True, r"no offscreen renderer works here \(glfw: DISPLAY is not set; egl: no \w+; osmesa: no \w+\)"),
        ("", True, r"no offscreen renderer works here \(egl: no \w+; osmesa: no \w+\); install libegl1 or libosmesa6"),
    ],
)
def test_no_renderer_is_one_sentence(monkeypatch: pytest.MonkeyPatch, chosen: str, broken: bool, said: str) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("MUJOCO_GL", chosen)
    real = importlib.import_module

    def without_libraries(name: str) -> object:
        if broken and name in ("mujoco.egl", "mujoco.osmesa", "mujoco.glfw"):
            raise ImportError(f"no {name.partition('.')[2]}")
        return real(name)

    monkeypatch.setattr("dima_isaac.sim.render.importlib.import_module", without_libraries)
    engine = toss(1)
    with pytest.raises(UsageError, match=said):
        engine.render(0, 64, 48)
    engine.close()
