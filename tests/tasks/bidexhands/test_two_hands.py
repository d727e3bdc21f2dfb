"""The part of a task with free bases that every such task inherits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dima_isaac.envs.task import Outcome
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.sim.config import MujocoConfig
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.mujoco.engine import MujocoEngine
from dima_isaac.tasks.bidexhands.hands.config import TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.placement import BasePoint, Hands
from dima_isaac.tasks.bidexhands.hands.two_hands import TwoHandTask


class Idle(TwoHandTask):
    """Two free hands and nothing to do."""

    Config = TwoHandConfig

    def __init__(self, cfg: TwoHandConfig, base_point: BasePoint = BasePoint.root) -> None:
        self.hands = Hands(pos=((0.0, 0.0, 0.5), (0.0, -1.15, 0.5)), base_point=base_point, start={"THJ0": -1.0})
        super().__init__(cfg)

    def tail(self, engine: Engine) -> list[Tensor]:
        return []

    def compute_reward(self, engine: Engine) -> Outcome:
        nothing = torch.zeros(engine.num_envs)
        return Outcome(nothing, nothing > 0, nothing > 0, {})


def make(base_point: BasePoint = BasePoint.root, **cfg: float) -> VecEnv:
    task = Idle(TwoHandConfig(**cfg), base_point)
    return VecEnv(MujocoEngine(task.scene(), 2, MujocoConfig(threads=1)), task, seed=0)


@pytest.mark.parametrize(
    ("point", "first", "second"),
    [
        # the palm centre is where the kinematic table has it, and hand 1 is turned half round
        (BasePoint.root, (0.0, 0.0, 0.5), (0.0, -1.15, 0.5)),
        (BasePoint.palm, (0.0, -0.370, 0.510), (0.0, -0.780, 0.510)),
    ],
)
def test_a_free_block_is_199_numbers(point: BasePoint, first: tuple, second: tuple) -> None:
    env = make(point)
    assert (env.spec.dims.state, env.spec.dims.obs, env.spec.dims.action) == (398, 199, 26)
    state = env.reset().state[0]
    for hand, (pos, yaw) in enumerate(((first, 0.0), (second, math.pi))):
        base = state[199 * hand + 167 : 199 * hand + 173].tolist()
        assert base[:3] == pytest.approx(pos, abs=1.1e-3)
        assert base[3:] == pytest.approx([0.0, 0.0, yaw], abs=1e-5)
    action = torch.rand(2, 2, 26) * 2 - 1
    assert torch.equal(env.step(action).state[:, env.spec.last_action_index.flatten()].view(2, 2, 26), action)


def test_hands_start_at_the_configured_joint_angles() -> None:
    env = make()
    env.reset()
    start = dict(zip(env.engine.dof_names, env.engine.dof_pos[0].tolist(), strict=True))
    assert start["hand0/THJ0"] == start["hand1/THJ0"] == -1.0
    assert start["hand0/THJ1"] == 0.0


def test_force_is_in_world_axes_and_acts_like_a_velocity() -> None:
    env = make(transition_scale=0.5)
    env.reset()
    action = torch.zeros(2, 2, 26)
    action[0, 0, 0], action[1, 1, 1] = 1.0, -1.0
    for _ in range(12):
        env.step(action)
    speed = env.engine.root_state[:, :2, 7:10]
    # 833 N against 600 N s/m per kg of a 5.011 kg hand; the forearm's centre is not quite the hand's
    assert speed[0, 0, 0].item() == pytest.approx(833.3 / (600.0 * 5.011), rel=0.15)
    assert speed[1, 1, 1].item() == pytest.approx(-833.3 / (600.0 * 5.011), rel=0.15)
    assert speed[0, 1].norm() < 0.02 and speed[1, 0].norm() < 0.02


def test_an_action_of_one_is_the_published_force_and_torque(monkeypatch: pytest.MonkeyPatch) -> None:
    """1666.67 N x transition_scale and 16.667 N m x orientation_scale, each on its own hand."""
    env = make(transition_scale=0.5, orientation_scale=0.02)
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    monkeypatch.setattr(env.engine, "apply_force", lambda actor, force, torque: seen.update({actor: (force, torque)}))
    action = torch.zeros(2, 2, 26)
    action[0, 0, :6] = torch.tensor([1.0, -0.5, 0.25, -1.0, 0.5, 2.0])  # the last one is clipped
    action[1, 1, :6] = torch.tensor([0.0, 0.0, -1.0, 0.0, 1.0, 0.0])
    env.task.act(env.engine, action)
    assert seen.keys() == {env.engine.actor_names.index(hand) for hand in ("hand0", "hand1")}
    for side, hand in enumerate(("hand0", "hand1")):
        force, torque = seen[env.engine.actor_names.index(hand)]
        push = action[:, side, :6].clamp(-1.0, 1.0)
        assert torch.allclose(force, 833.333 * push[:, :3], rtol=1e-5)
        assert torch.allclose(torque, 0.333333 * push[:, 3:], rtol=1e-5)


def test_a_reset_brings_a_pushed_hand_back() -> None:
    env = make(transition_scale=0.5, episode_length=10)
    env.reset()
    action = torch.zeros(2, 2, 26)
    action[..., 0] = 1.0
    for _ in range(10):
        step = env.step(action)
    assert step.last.all() and (env.engine.root_state[:, :2, 0].abs() > 0.02).all()
    env.step(action)
    assert torch.allclose(env.engine.root_state[:, 0, :3], torch.tensor([0.0, 0.0, 0.5]), atol=1e-6)
    assert env.engine.root_state[:, :2, 7:].abs().max() < 1e-6


def test_smoothing_mixes_old_and_new_targets() -> None:
    env = make(action_smoothing=0.25)
    env.reset()
    column = [env.engine.dof_names[dof] for dof in env.engine.actuator_dofs].index("hand1/FFJ2")
    action = torch.ones(2, 2, 26)
    seen = []
    for _ in range(2):
        env.step(action)
        seen.append(float(env.engine.batch.bind("ctrl")[0, column]))
    assert seen == pytest.approx([0.25 * 1.571, (1 - 0.75**2) * 1.571], rel=1e-5)


def test_relative_control_moves_both_hands_last_targets_within_the_limits() -> None:
    env = make(relative_control=True, dof_speed_scale=3.0, action_smoothing=0.5, transition_scale=0.5)
    env.reset()
    names = [env.engine.dof_names[dof] for dof in env.engine.actuator_dofs]
    action = torch.zeros(2, 2, 26)
    action[..., 6:] = 1.0
    action[1, 1, 0] = 1.0  # forces act as ever
    seen = []
    for _ in range(30):
        env.step(action)
        ctrl = env.engine.batch.bind("ctrl")[0]
        seen.append([float(ctrl[names.index(f"{hand}/FFJ2")]) for hand in ("hand0", "hand1")])
    assert seen[0] == pytest.approx([0.5 * 3.0 / 60.0] * 2)
    assert seen[1] == pytest.approx([2 * 0.5 * 3.0 / 60.0] * 2)
    assert max(map(max, seen)) <= 1.571
    assert env.engine.root_state[1, 1, 0] > 0.05 and abs(float(env.engine.root_state[1, 0, 0])) < 0.02
