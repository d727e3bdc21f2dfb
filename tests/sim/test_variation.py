"""Domain randomisation: within the documented ranges, per world, the same on both engines, and absent when off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dima_isaac.sim.compiled import Compiled, compile_scene
from dima_isaac.sim.config import MujocoConfig
from dima_isaac.sim.scene import Actor, Mjcf, Scene, Variation
from dima_isaac.sim.variation import expanded_fields, varies
from dima_isaac.tasks.bidexhands.catch import Catch, CatchConfig
from tests.sim.toss import BALL, BOX, KINDS, TOSS, build, drive, everywhere, on, views

pytestmark = pytest.mark.timeout(1200)  # the first run on a machine compiles Warp's kernels
WORLDS = 64
WIDE = Variation(mass=(0.5, 1.5), friction=(0.7, 1.3), damping=(0.3, 3.0), stiffness=(0.75, 1.5), scale=(0.95, 1.05))
VARIED = replace(
    TOSS,
    actors=[actor if actor.marker else replace(actor, variation=WIDE) for actor in TOSS.actors],
    gravity_deviation=0.4,
)


@pytest.fixture(scope="module")
def hands() -> tuple[Scene, Compiled, dict[str, np.ndarray]]:
    scene = Catch(CatchConfig(randomize=True)).scene()
    compiled = compile_scene(scene, MujocoConfig())
    return scene, compiled, expanded_fields(scene, compiled, WORLDS)


def ratios(hands: tuple, field: str, chosen: list[int], column: int) -> np.ndarray:
    """Per world and item, the value over the nominal one; ``column`` where an item is several numbers."""
    _, compiled, own = hands
    nominal = getattr(compiled.model, field)[chosen]
    value = own[field][:, chosen]
    return value[..., column] / nominal[..., column] if nominal.ndim > 1 else value / nominal


def parts(compiled: Compiled, kind: str, actor: str) -> list[int]:
    """The actor's bodies, joints or tendons."""
    model = compiled.model
    count = {"body": model.nbody, "joint": model.njnt, "tendon": model.ntendon}[kind]
    return [i for i in range(count) if getattr(model, kind)(i).name.startswith(f"{actor}/")]


@pytest.mark.parametrize("hand", ["hand0", "hand1"])
def test_both_hands_stay_within_the_published_ranges(hands, hand: str) -> None:
    _, compiled, _ = hands
    model = compiled.model
    bodies, joints = parts(compiled, "body", hand), parts(compiled, "joint", hand)
    dofs = model.jnt_dofadr[joints].tolist()
    geoms = np.flatnonzero(np.isin(model.geom_bodyid, bodies)).tolist()
    drives = np.flatnonzero(np.isin(model.actuator_trnid[:, 0], joints)).tolist()
    heavy = [body for body in bodies if model.body_mass[body] > 0.0]
    assert (len(joints), len(drives), len(geoms) > 15) == (24, 20, True)
    for field, chosen, column, low, high in (
        ("body_mass", heavy, 0, 0.5, 1.5),
        ("geom_friction", geoms, 0, 0.7, 1.3),
        ("dof_damping", dofs, 0, 0.3, 3.0),
        ("actuator_gainprm", drives, 0, 0.75, 1.5),
        ("actuator_biasprm", drives, 1, 0.75, 1.5),
    ):
        ratio = ratios(hands, field, chosen, column)
        assert ratio.shape == (WORLDS, len(chosen))
        assert low <= ratio.min() < low + 0.1 * (high - low) and high - 0.1 * (high - low) < ratio.max() <= high
        assert len(np.unique(ratio)) == ratio.size  # every world and part its own
    gain, bias = (ratios(hands, f"actuator_{name}", drives, i) for i, name in enumerate(("gainprm", "biasprm")))
    assert np.allclose(gain, bias)  # a drive stays a spring about its target
    assert np.median(ratios(hands, "dof_damping", dofs, 0)) == pytest.approx(0.9**0.5, rel=0.1)  # log-uniform


@pytest.mark.parametrize("hand", ["hand0", "hand1"])
def test_limits_and_couplings_shift(hands, hand: str) -> None:
    _, compiled, own = hands
    joints, tendons = parts(compiled, "joint", hand), parts(compiled, "tendon", hand)
    shift = own["jnt_range"][:, joints] - compiled.model.jnt_range[joints]
    assert shift.std() == pytest.approx(0.01, rel=0.1) and abs(shift.mean()) < 0.001
    assert (np.diff(own["jnt_range"], axis=-1) >= 0.0).all()
    time, ratio = np.moveaxis(own["tendon_solref_lim"][:, tendons] / compiled.model.tendon_solref_lim[tendons], -1, 0)
    damping, stiffness = 1.0 / time, 1.0 / (time * ratio) ** 2
    for factor, low, high in ((damping, 0.3, 3.0), (stiffness, 0.75, 1.5)):
        assert low <= factor.min() < factor.max() <= high


def test_the_object_and_gravity_vary(hands) -> None:
    _, compiled, own = hands
    egg = compiled.model.body("egg0").id
    geom = int(np.flatnonzero(compiled.model.geom_bodyid == egg)[0])
    size = own["geom_size"][:, geom] / compiled.model.geom_size[geom]
    assert np.allclose(size, size[:, :1]) and 0.95 <= size.min() < size.max() <= 1.05
    mass = own["body_mass"][:, egg] / compiled.model.body_mass[egg]
    assert 0.5 <= mass.min() < 0.6 and 1.4 < mass.max() <= 1.5
    inertia = own["body_inertia"][:, egg] / compiled.model.body_inertia[egg]
    assert np.allclose(inertia, (mass * size[:, 0] ** 2)[:, None])
    # what follows from them is per world too: bounds, and 1 / m of a free body
    assert np.allclose(own["geom_rbound"][:, geom], own["geom_size"][:, geom].max(1))
    assert np.allclose(own["body_invweight0"][:, egg, 0], 1.0 / own["body_mass"][:, egg])
    shift = own["opt.gravity"] - compiled.model.opt.gravity
    assert shift.std() == pytest.approx(0.4, rel=0.2)


def test_a_world_draws_the_same_whatever_their_number(hands) -> None:
    scene, compiled, own = hands
    few = expanded_fields(scene, compiled, 3)
    assert few.keys() == own.keys()
    for name, value in few.items():
        assert np.array_equal(value, own[name][:3]), name
    other = expanded_fields(replace(scene, variation_seed=1), compiled, 3)
    assert not np.array_equal(other["body_mass"], few["body_mass"])


def test_off_is_the_default_and_changes_no_bit() -> None:
    scene = Catch(CatchConfig()).scene()
    assert not varies(scene) and all(actor.variation is None for actor in scene.actors)
    varied = Catch(CatchConfig(randomize=True)).scene()
    assert varies(varied) and scene == replace(varied, actors=scene.actors, gravity_deviation=0.0)
    usual, seeded = (build("mujoco", one, 4) for one in (TOSS, replace(TOSS, variation_seed=5)))
    for engine in (usual, seeded):
        drive(engine, 30)
    for mine, theirs in zip(views(usual), views(seeded), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_force_moves_each_world_by_its_own_mass(kind: str) -> None:
    """v = F t / m, for as many masses as worlds."""
    heavy = Actor("box", Mjcf(xml=BOX), pos=(0, 0, 5.0), gravity=False, wrench="box", variation=WIDE)
    scene = Scene(actors=[heavy], ground=False)
    engine = build(kind, scene, 8)
    engine.apply_force(0, on(engine, [[6.0, 0.0, 0.0]] * 8), on(engine, [[0.0] * 3] * 8))
    engine.step(everywhere(engine, False))
    masses = expanded_fields(scene, compile_scene(scene, MujocoConfig()), 8)["body_mass"][:, -1]
    speeds = engine.root_state[:, 0, 7].cpu().double().numpy()
    assert np.allclose(speeds * masses, 6.0 / 60.0, rtol=1e-5) and len(np.unique(masses)) == 8


@pytest.mark.parametrize("kind", KINDS[1:])
def test_both_engines_simulate_the_same_variety(kind: str) -> None:
    engines = [build(which, VARIED, 6) for which in ("mujoco", kind)]
    for engine in engines:
        drive(engine, 30)
    for name in ("root_state", "dof_pos", "dof_vel", "body_state"):
        mine, theirs = (getattr(engine, name).cpu() for engine in engines)
        assert (mine - theirs).abs().max() < 1e-3, name
    heights = engines[1].root_state[:, BALL, 2]
    assert len(heights.unique()) == 6  # balls of their own sizes rest at their own heights
    again = build(kind, VARIED, 6)
    drive(again, 30)
    assert (again.root_state - engines[1].root_state).abs().max() < 1e-3
