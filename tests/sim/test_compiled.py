"""The scene compiler: what is kept of an asset, which bodies may touch, and the benchmark's kinematic table."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

import dima_isaac.tasks.bidexhands.hands.hand as hand_module
from dima_isaac.errors import UsageError
from dima_isaac.sim.compiled import Compiled, compile_scene
from dima_isaac.sim.config import MujocoConfig
from dima_isaac.sim.model import compile_visuals
from dima_isaac.sim.mujoco.engine import MujocoEngine
from dima_isaac.sim.scene import Actor, Box, Ellipsoid, Mjcf, Scene
from dima_isaac.tasks.bidexhands.hands.hand import ACTUATED, JOINTS, PALM, TIPS, shadow_hand
from dima_isaac.tasks.bidexhands.hands.two_hands import PALM_POINT, TIP_POINT, attached


def two_hands(free: bool = False) -> Scene:
    links = [f"{hand}/{link}" for hand in ("hand0", "hand1") for link in (*TIPS, "wrist", PALM)]
    pose = {"gravity": False, "fixed": not free, "wrench": "forearm", "damping": (100.0, 100.0) if free else (0.0, 0.0)}
    hands = [
        Actor("hand0", shadow_hand(), **pose),
        Actor("hand1", shadow_hand(), pos=(0.0, -1.0, 0.3), quat=(0.0, 0.0, 1.0, 0.0), **pose),
    ]
    return Scene(actors=[*hands, Actor("egg", Ellipsoid((0.03, 0.03, 0.04)), pos=(0, 0, 2))], links=links, ground=False)


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_scene(two_hands(), MujocoConfig())


AT_ZERO = {
    "wrist": (0.0, -0.256, -0.010),
    "palm": (0.0, -0.290, -0.010),
    "palm centre": (0.0, -0.370, 0.010),
    "ffdistal": (-0.033, -0.475, -0.010),
    "mfdistal": (-0.011, -0.479, -0.010),
    "rfdistal": (0.011, -0.475, -0.010),
    "lfdistal": (0.034, -0.468, -0.010),
    "thdistal": (-0.0976, -0.3827, -0.001),
}
AT_MIDDLE = {
    "palm centre": (0.020, -0.370, 0.0015),
    "ffdistal": (-0.006, -0.411, 0.047),
    "mfdistal": (0.016, -0.411, 0.047),
    "rfdistal": (0.037, -0.404, 0.047),
    "lfdistal": (0.032, -0.382, 0.063),
    "thdistal": (-0.050, -0.394, 0.038),
}


class TestKinematics:
    """The published points of a hand at the origin, fingers along -y, palm up."""

    @staticmethod
    def points(share: float, free: bool = False) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        engine = MujocoEngine(two_hands(free), 1, MujocoConfig(threads=1))
        middle = 0.5 * (engine.dof_lower + engine.dof_upper)
        mask = torch.ones(1, dtype=torch.bool)
        pose = share * middle
        for k, name in enumerate(engine.dof_names):
            if name.endswith(("FFJ0", "MFJ0", "RFJ0", "LFJ0")):
                pose[k] = 0.00805 / 0.00705 * pose[k - 1]  # the coupling pulls the distal joint along
        engine.set_dof_state(mask, pose.unsqueeze(0), torch.zeros(1, 48))
        engine.refresh(mask)
        out = []
        for hand in ("hand0", "hand1"):
            frame = {
                name.split("/")[1]: engine.body_state[0, k] for k, name in enumerate(engine.link_names) if hand in name
            }
            points = {tip: attached(frame[tip], torch.tensor(TIP_POINT)) for tip in TIPS}
            points |= {
                "palm centre": attached(frame[PALM], torch.tensor(PALM_POINT)),
                "palm": frame[PALM][:3],
                "wrist": frame["wrist"][:3],
            }
            out.append(points)
        return out[0], out[1]

    @pytest.mark.parametrize("free", [False, True])
    def test_straight(self, free: bool) -> None:
        first, second = self.points(0.0, free)
        for name, expected in AT_ZERO.items():
            assert first[name].tolist() == pytest.approx(expected, abs=1.1e-3), name
            x, y, z = expected  # hand 1 is turned half round about z
            assert second[name].tolist() == pytest.approx((-x, -1.0 - y, 0.3 + z), abs=1.1e-3), name

    def test_half_curled(self) -> None:
        first, _ = self.points(1.0)
        for name, expected in AT_MIDDLE.items():
            assert first[name].tolist() == pytest.approx(expected, abs=1.1e-3), name


def test_joints_come_in_the_benchmarks_order(compiled: Compiled) -> None:
    assert compiled.dof_names == tuple(f"{hand}/{joint}" for hand in ("hand0", "hand1") for joint in JOINTS)
    driven = [compiled.dof_names[dof] for dof in compiled.actuator_dofs]
    assert driven == [f"{hand}/{joint}" for hand in ("hand0", "hand1") for joint in ACTUATED]
    assert compiled.dof_lower[:2].tolist() == pytest.approx([-0.489, -0.698])
    assert compiled.dof_upper[23] == 0.0


def test_an_asset_keeps_only_what_the_scene_uses(compiled: Compiled) -> None:
    model = compiled.model
    assert model.ntendon == 8 and model.npair == 36  # four couplings; nineteen pairs, one of them listed twice
    assert model.dof_frictionloss.max() == 0.0
    assert model.body_mass.sum() == pytest.approx(2 * 5.011 + model.body("egg").mass.item(), rel=1e-3)
    assert model.actuator_gainprm[:3, 0].tolist() == [5.0, 5.0, 1.0]


def test_gains_and_damping_scale() -> None:
    scaled = compile_scene(two_hands(), MujocoConfig(stiffness_scale=3.0, joint_damping_scale=2.0)).model
    assert scaled.actuator_gainprm[2, 0] == 3.0 and scaled.actuator_biasprm[2, 1] == -3.0
    assert scaled.dof_damping[2] == pytest.approx(0.2)


def test_pictures_and_physics_share_joints_and_bodies(compiled: Compiled) -> None:
    pictures = compile_visuals(two_hands())
    assert (pictures.nq, pictures.nv, pictures.nmocap) == (compiled.model.nq, compiled.model.nv, compiled.model.nmocap)
    assert pictures.ngeom > compiled.model.ngeom
    for field in ("body_mass", "body_inertia", "body_ipos", "body_pos"):
        assert np.array_equal(getattr(pictures, field), getattr(compiled.model, field)), field
    parts = [pictures.geom(f"hand0/V_{part}") for part in ("forearm", "palm", "ffproximal", "ffdistal", "wrist")]
    made_of = [pictures.mat(int(part.matid[0])).name for part in parts]
    assert made_of == [f"hand0/{name}" for name in ("shell", "body", "body", "rubber", "metal")]
    assert compiled.model.nmat == 0


def may_touch(model: mujoco.MjModel, first: str, second: str) -> bool:
    a, b = (
        [g for g in range(model.ngeom) if model.body(model.geom_bodyid[g]).name == name] for name in (first, second)
    )
    assert a and b
    return any(
        model.geom_contype[i] & model.geom_conaffinity[j] or model.geom_contype[j] & model.geom_conaffinity[i]
        for i in a
        for j in b
    )


def test_which_bodies_may_touch(compiled: Compiled) -> None:
    model = compiled.model
    assert may_touch(model, "hand0/ffdistal", "hand1/palm")
    assert may_touch(model, "hand0/ffdistal", "egg")
    assert not may_touch(model, "hand0/ffdistal", "hand0/palm")


def test_self_collision_excludes_what_overlaps_at_rest() -> None:
    scene = two_hands()
    actors = [
        Actor(a.name, a.asset, a.pos, a.quat, fixed=True, gravity=False, self_collision=True) for a in scene.actors[:1]
    ]
    model = compile_scene(Scene(actors=actors, ground=False), MujocoConfig()).model
    assert may_touch(model, "hand0/ffdistal", "hand0/palm") and model.nexclude > 0
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert not any(contact.dist < 0 for contact in data.contact[: data.ncon])


def test_friction_is_the_mean_of_two_materials() -> None:
    slippery = Actor("ice", Box((0.1, 0.1, 0.1)), pos=(0, 0, 0.05), friction=0.1)
    model = compile_scene(Scene(actors=[slippery]), MujocoConfig()).model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert data.ncon and data.contact[0].friction[0] == pytest.approx(0.55)


def test_a_damped_free_hand_is_diagonal_at_its_base() -> None:
    compiled = compile_scene(two_hands(free=True), MujocoConfig())
    model, base = compiled.model, compiled.root_qvel[1]
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    inertia = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, inertia)
    assert np.abs(inertia[base : base + 3, base + 3 : base + 6]).max() < 1e-6
    # c per kg; a finger's drag is c times the inertia about its joint, besides the joint's own 0.1
    assert model.dof_damping[base : base + 3].tolist() == pytest.approx([100.0 * 5.011] * 3, rel=1e-3)
    knuckle = compiled.dof_qvel[compiled.dof_names.index("hand1/FFJ2")]
    own = inertia[knuckle, knuckle] - model.dof_armature[knuckle]
    assert model.dof_damping[knuckle] == pytest.approx(0.1 + 100.0 * own)
    assert compiled.wrench_share.tolist() == [pytest.approx([1 / 6, 1 / 6])] * 2 + [[1.0, 1.0]]


def test_a_wrench_acts_on_the_forearm() -> None:
    compiled = compile_scene(two_hands(free=True), MujocoConfig())
    names = [compiled.model.body(body).name if body >= 0 else "" for body in compiled.wrench_body]
    assert names == ["hand0/forearm", "hand1/forearm", ""]


def test_too_much_damping_is_refused() -> None:
    actor = Actor("box", Box((0.1, 0.1, 0.1)), damping=(120.0, 0.0))
    with pytest.raises(UsageError, match=r"damping 120.0 of actor 'box'.*less than 120"):
        compile_scene(Scene(actors=[actor]), MujocoConfig())


@pytest.mark.parametrize("asset", [Mjcf(), Mjcf(path="/nowhere.xml"), Mjcf(xml="<mujoco/>")])
def test_a_wrong_asset_is_one_sentence(asset: Mjcf) -> None:
    with pytest.raises(UsageError):
        compile_scene(Scene(actors=[Actor("thing", asset)]), MujocoConfig())


def test_a_missing_hand_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_module.importlib.util, "find_spec", lambda name: None)
    shadow_hand.cache_clear()
    with pytest.raises(UsageError, match="pip install gymnasium-robotics"):
        shadow_hand()
    shadow_hand.cache_clear()


def test_the_hand_imports_nothing() -> None:
    import subprocess
    import sys

    code = (
        "import dima_isaac, sys; from dima_isaac.tasks.bidexhands.hands.hand import shadow_hand; shadow_hand();"
        "print([m for m in ('gymnasium', 'gymnasium_robotics', 'mujoco', 'torch') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
