"""The twenty tasks as a table: dimensions, agents, YAML, where the tail's numbers come from, where points are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dima_isaac.run.catalog import CODE_KEYS, Catalog, import_target, task_config
from dima_isaac.schema import as_dict
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.two_hands import TwoHandTask
from tests.tasks.bidexhands.stage import Stage

TASKS = {  # state, observation, actions per agent, episode length, transition scale, orientation scale
    "ShadowHandOver": (398, 211, 20, 75, 0.0, 0.0),
    "ShadowHandCatchUnderarm": (422, 223, 26, 75, 0.05, 0.5),
    "ShadowHandTwoCatchUnderarm": (446, 247, 26, 75, 0.05, 0.5),
    "ShadowHandCatchAbreast": (422, 223, 26, 150, 0.5, 1.0),
    "ShadowHandCatchOver2Underarm": (422, 223, 26, 75, 0.1, 2.0),
    "ShadowHandReOrientation": (422, 235, 20, 600, 0.0, 0.0),
    "ShadowHandLiftUnderarm": (417, 218, 26, 500, 0.25, 1.0),
    "ShadowHandDoorOpenInward": (417, 218, 26, 250, 0.5, 0.5),
    "ShadowHandDoorOpenOutward": (417, 218, 26, 250, 0.5, 0.5),
    "ShadowHandDoorCloseInward": (417, 218, 26, 250, 0.5, 0.5),
    "ShadowHandDoorCloseOutward": (417, 218, 26, 250, 0.5, 0.5),
    "ShadowHandBottleCap": (420, 221, 26, 125, 0.1, 0.1),
    "ShadowHandPushBlock": (428, 229, 26, 125, 0.5, 0.1),
    "ShadowHandSwingCup": (417, 218, 26, 300, 0.1, 0.1),
    "ShadowHandScissors": (417, 218, 26, 150, 0.5, 0.1),
    "ShadowHandGraspAndPlace": (425, 226, 26, 500, 0.5, 0.1),
    "ShadowHandBlockStack": (428, 229, 26, 250, 0.2, 0.02),
    "ShadowHandKettle": (417, 218, 26, 125, 0.5, 0.1),
    "ShadowHandPen": (417, 218, 26, 125, 0.5, 0.1),
    "ShadowHandSwitch": (417, 218, 26, 125, 0.5, 0.1),
}


def task_of(name: str, **values) -> TwoHandTask:
    """A task without an engine, as its YAML says."""
    settings = Catalog().values("task", name)
    cls = import_target(settings["target"])
    return cls(task_config({**settings, **values}))


def test_the_twenty_are_all_there():
    assert {name for name in Catalog().names("task") if name.startswith("ShadowHand")} == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_published_dimensions_and_numbers(name):
    state, obs, action, length, transition, orientation = TASKS[name]
    task = task_of(name)
    dims = task.spec.dims
    assert (dims.agents, dims.state, dims.obs, dims.action) == (2, state, obs, action)
    assert (task.spec.name, task.spec.episode_length) == (name, length)
    assert (task.cfg.transition_scale, task.cfg.orientation_scale) == (transition, orientation)
    assert task.hands.free is (action == 26) and task.spec.control_dt == pytest.approx(1 / 60)


@pytest.mark.parametrize("name", ["ShadowHandOver", "ShadowHandPen"])
def test_agents_per_hand(name):
    _, obs, action, *_ = TASKS[name]
    palm = action - 18
    for index, widest in (([[0], [1, 2, 3, 4, 5]], 18), ([[0], [1], [2], [3], [4], [5]], max(palm, 5))):
        dims = task_of(name, hand_agent_index=index).spec.dims
        assert (dims.agents, dims.obs, dims.action) == (2 * len(index), obs, widest)


@pytest.mark.parametrize("name", TASKS)
def test_a_tasks_yaml_lists_only_its_own_settings(name):
    """What all share is in TwoHandConfig; everything else, and every other default, stands in the file."""
    values = Catalog().values("task", name)
    config = import_target(values["target"]).Config
    listed = {key: value for key, value in values.items() if key not in CODE_KEYS}
    shared, own = as_dict(TwoHandConfig()), as_dict(config())
    assert listed.keys() >= {key for key in own if key not in shared or shared[key] != own[key]}
    if import_target(values["target"]).__name__ == name:  # not a variant
        assert all(listed[key] == value for key, value in own.items() if key not in shared)


@pytest.mark.parametrize("name", TASKS)
def test_the_terms_sum_to_the_reward(name):
    outcome = Stage(name).compute_reward()
    assert torch.allclose(torch.stack(list(outcome.terms.values())).sum(0), outcome.reward, atol=1e-5)
    assert all(term.shape == outcome.reward.shape for term in outcome.terms.values())


# ---- the tail of the state -----------------------------------------------------------------------------------------


def rotation(quat: np.ndarray) -> np.ndarray:
    """The matrix of an xyzw quaternion."""
    x, y, z, w = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


class Numbered:
    """Every actor and link at a pose of its own, so that a number says where it comes from."""

    def __init__(self, stage: Stage) -> None:
        engine, rng = stage.engine, np.random.default_rng(0)
        self.rows: dict[str, np.ndarray] = {}
        for view, names in ((engine.body_state, engine.link_names), (engine.root_state, engine.actor_names)):
            for index, name in enumerate(names):
                quat = rng.normal(size=4)
                row = np.concatenate([rng.uniform(-2, 2, 3), quat / np.linalg.norm(quat), rng.uniform(-2, 2, 6)])
                row = self.rows.setdefault(name, row)
                view[0, index] = torch.from_numpy(row).float()

    def block(self, name: str) -> np.ndarray:
        """O: pose, linear velocity, a fifth of the angular velocity."""
        row = self.rows[name]
        return np.concatenate([row[:10], 0.2 * row[10:]])

    def goal(self, thing: str, goal: str) -> np.ndarray:
        """G: the goal's pose, then q_thing q_goal^-1."""
        ax, ay, az, aw = self.rows[thing][3:7]
        bx, by, bz, bw = self.rows[goal][3:7] * np.array([-1, -1, -1, 1])
        turn = [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ]
        return np.concatenate([self.rows[goal][:7], turn])

    def point(self, link: str, x: float, y: float, z: float) -> np.ndarray:
        """A point in the axes of a link."""
        row = self.rows[link]
        return row[:3] + rotation(row[3:7]) @ np.array([x, y, z])


@pytest.mark.parametrize("name", TASKS)
def test_object_columns_are_the_positions_of_free_props(name):
    stage = Stage(name)
    numbered, task = Numbered(stage), stage.task
    columns, free = task.spec.object_columns, [prop.actor.name for prop in task.props if prop.actor.free]
    if columns is None:
        assert not task.props[0].actor.free, "what the state begins its tail with is fixed to the ground"
        return
    state = task.state(stage.engine)[0].numpy()
    for thing, shown in zip(free, columns.numpy(), strict=False):  # a lid may be free and not in the state
        np.testing.assert_allclose(state[shown], numbered.rows[thing][:3], rtol=1e-6)


def partnet(x: float, y: float, z: float) -> tuple[float, float, float]:
    """A point in the original's y-up link axes, in ours."""
    return -z, -x, y


TAILS = {
    "ShadowHandCatchUnderarm": lambda n: [n.block("egg0"), n.goal("egg0", "goal0")],
    "ShadowHandTwoCatchUnderarm": lambda n: [
        n.block("egg0"),
        n.goal("egg0", "goal0"),
        n.block("egg1"),
        n.goal("egg1", "goal1"),
    ],
    "ShadowHandReOrientation": lambda n: [
        n.block("cube0"),
        n.goal("cube0", "goal0"),
        n.block("cube1"),
        n.goal("cube1", "goal1"),
    ],
    "ShadowHandLiftUnderarm": lambda n: [n.block("pot"), n.point("pot", 0, 0.15, 0.06), n.point("pot", 0, -0.15, 0.06)],
    "ShadowHandSwingCup": lambda n: [n.block("mug"), n.point("mug", 0.062, 0, 0), n.point("mug", -0.06, 0, 0)],
    "ShadowHandScissors": lambda n: [
        n.block("scissors"),
        n.point("scissors/blade", *partnet(0.2, 0, -0.1)),
        n.point("scissors", *partnet(0.15, 0, 0.1)),
    ],
    "ShadowHandPen": lambda n: [
        n.block("pen"),
        n.point("pen/cap", *partnet(0, -0.1, 0)),
        n.point("pen", *partnet(0, 0.07, 0)),
    ],
    "ShadowHandSwitch": lambda n: [
        n.block("right"),
        n.point("right/rocker", *partnet(-0.05, -0.02, 0)),
        n.point("left/rocker", *partnet(-0.05, -0.02, 0)),
    ],
    "ShadowHandKettle": lambda n: [n.block("kettle"), n.point("kettle", 0.15, 0, 0), n.point("bucket", 0, 0, -0.1)],
    "ShadowHandBottleCap": lambda n: [
        n.block("bottle"),
        n.point("bottle", 0, 0, 0),
        n.point("bottle", 0, 0, 0.15),
        n.point("bottle/cap", 0, 0, 0),
    ],
    "ShadowHandPushBlock": lambda n: [
        n.block("right"),
        n.point("right", 0, 0, 0),
        n.point("left", 0, 0, 0),
        (-0.2, -0.2, 0.625),
        (-0.2, 0.2, 0.625),
        np.zeros(5),
    ],
    "ShadowHandGraspAndPlace": lambda n: [n.block("bucket"), n.rows["bucket"][:7], n.rows["cube"][:7]],
    "ShadowHandBlockStack": lambda n: [n.block("right"), n.block("left"), np.zeros(4)],
}
for throw in ("Over", "CatchAbreast", "CatchOver2Underarm"):
    TAILS[f"ShadowHand{throw}"] = TAILS["ShadowHandCatchUnderarm"]
for side, direction in ((0.04, "Inward"), (-0.04, "Outward")):
    for aim in ("Open", "Close"):
        TAILS[f"ShadowHandDoor{aim}{direction}"] = lambda n, s=side: [
            n.block("door"),
            n.point("door/left", *partnet(-0.39, -0.5, s)),
            n.point("door/right", *partnet(0.39, -0.5, s)),
        ]


@pytest.mark.parametrize("name", TAILS)
def test_where_the_tail_comes_from(name):
    stage = Stage(name)
    expected = np.concatenate([np.asarray(part, dtype=float) for part in TAILS[name](Numbered(stage))])
    state = stage.task.state(stage.engine)[0]
    blocks = 2 * (199 if stage.task.hands.free else 187)
    assert state.numel() == blocks + len(expected) == TASKS[name][0]
    assert np.allclose(state[blocks:].numpy(), expected.clip(-5, 5), atol=1e-5)
    obs = stage.task.observe(state)
    for hand in range(2):
        half = blocks // 2
        assert torch.equal(obs[hand], torch.cat([state[hand * half : (hand + 1) * half], state[blocks:]]))


@pytest.mark.parametrize(("name", "palm"), [("ShadowHandCatchUnderarm", False), ("ShadowHandPen", True)])
def test_free_base_numbers(name, palm):
    stage = Stage(name)
    n = Numbered(stage)
    action = torch.linspace(-0.9, 0.9, 52).view(1, 2, 26)
    stage.task.act(stage.engine, action)
    state = stage.task.state(stage.engine)[0].numpy()
    for side in range(2):
        start = 199 * side + 167
        place = n.point(f"hand{side}/palm", 0, -0.02, 0.08) if palm else n.rows[f"hand{side}"][:3]
        assert np.allclose(state[start : start + 3], place, atol=1e-5)
        turned = rotation(n.rows[f"hand{side}"][3:7])
        roll, pitch = math.atan2(turned[2, 1], turned[2, 2]), math.asin(-turned[2, 0])
        angles = np.array([roll, pitch, math.atan2(turned[1, 0], turned[0, 0])]) % (2 * math.pi)
        assert np.allclose(state[start + 3 : start + 6], angles.clip(max=5.0), atol=1e-4)
        assert np.allclose(state[start + 6 : start + 32], action[0, side].numpy())


@pytest.mark.parametrize("profile", ["fixed", "compat"])
@pytest.mark.parametrize(("name", "first"), [("ShadowHandReOrientation", 259), ("ShadowHandPen", 271)])
def test_published_fingertip_columns_of_hand_1_show_hand_0(name, first, profile):
    """The original looks hand 1's fingertips up by indices that count from its own asset: 65 columns from ``first``."""
    stage = Stage(name, profile)
    numbered = Numbered(stage)
    state = stage.task.state(stage.engine)[0].numpy()
    shown = {"fixed": "hand1", "compat": "hand0"}[profile]
    tips = [numbered.rows[f"{shown}/{tip}"] for tip in ("ffdistal", "mfdistal", "rfdistal", "lfdistal", "thdistal")]
    np.testing.assert_allclose(state[first : first + 65], np.concatenate(tips), atol=1e-6)
    assert (profile == "compat") == np.array_equal(state[first : first + 65], state[72:137])


# ---- where the points are at the start, in the world ---------------------------------------------------------------

START_POINTS = {
    "ShadowHandDoorOpenInward": ((0.048, 0.037, 0.717), (0.046, -0.030, 0.717)),
    "ShadowHandDoorOpenOutward": ((0.032, 0.037, 0.683), (0.034, -0.030, 0.683)),
    "ShadowHandDoorCloseInward": ((0.398, 0.466, 0.717), (0.396, -0.460, 0.717)),
    "ShadowHandDoorCloseOutward": ((-0.398, 0.386, 0.683), (-0.396, -0.380, 0.683)),
    "ShadowHandScissors": ((0.152, -0.032, 0.606), (0.150, -0.100, 0.606)),
    "ShadowHandPen": ((0.0, 0.10, 0.612), (0.0, -0.07, 0.612)),
    "ShadowHandSwitch": ((None, 0.2, 0.7023), (None, -0.2, 0.7023)),
    "ShadowHandSwingCup": ((0.0, 0.062, 0.684), (0.0, -0.06, 0.684)),
    "ShadowHandLiftUnderarm": ((0.0, -0.45, 0.525), (0.0, -0.75, 0.525)),
    "ShadowHandKettle": ((0.0, 0.15, 0.474), (0.0, -0.3, 0.353), (0.0, -0.2, 0.544)),
    "ShadowHandBottleCap": ((-0.0966, -0.6, 0.6147), (0.0, -0.6, 0.5)),
}


@pytest.mark.parametrize("name", START_POINTS)
def test_points_at_the_start(name):
    stage = Stage(name)
    points = stage.task.points()[0].tolist()
    for point, expected in zip(points, START_POINTS[name], strict=False):
        for value, wanted in zip(point, expected, strict=True):
            assert wanted is None or value == pytest.approx(wanted, abs=1.1e-3)


def test_bottle_cap_is_closed_at_the_published_distance():
    stage = Stage("ShadowHandBottleCap")
    _, bottle, cap = stage.task.points()[0]
    assert float((cap - bottle).norm()) == pytest.approx(0.0103, abs=1e-5)


def test_palms_of_lift_are_at_the_published_distance():
    stage = Stage("ShadowHandLiftUnderarm")
    grip = (stage.task.points() - stage.task.palms()).norm(dim=-1)[0]
    assert grip.tolist() == pytest.approx([0.148, 0.148], abs=5e-3)


def test_doors_to_be_closed_start_moving_only_as_published():
    for profile, speed in (("fixed", 0.0), ("compat", 1.57)):
        stage = Stage("ShadowHandDoorCloseInward", profile)
        hinges = [stage.engine.dof_names.index(f"door/{leaf}") for leaf in ("right_hinge", "left_hinge")]
        assert stage.engine.dof_vel[0, hinges].tolist() == pytest.approx([speed, speed])
        assert stage.engine.dof_pos[0, hinges].tolist() == pytest.approx([1.57, 1.57])
