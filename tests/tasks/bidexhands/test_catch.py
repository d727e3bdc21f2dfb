"""ShadowHandOver, and with it what all two-handed tasks share: the hands' part of the state, targets, starts."""

from __future__ import annotations

import pytest
import torch

from dima_isaac.envs.noise import Noise
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import UsageError
from dima_isaac.sim.config import MujocoConfig
from dima_isaac.sim.mujoco.engine import MujocoEngine
from dima_isaac.tasks.bidexhands.catch import Catch, CatchConfig, Throw
from dima_isaac.tasks.bidexhands.hands.config import Profile
from dima_isaac.tasks.bidexhands.hands.hand import ACTUATED, JOINTS
from dima_isaac.tasks.bidexhands.hands.starts import spin


def make(envs: int = 2, seed: int = 0, **cfg) -> VecEnv:
    task = Catch(CatchConfig(**cfg))
    return VecEnv(MujocoEngine(task.scene(), envs, MujocoConfig(threads=1)), task, seed)


@pytest.fixture(scope="module")
def env() -> VecEnv:
    return make(2)


def number_everything(env: VecEnv) -> None:
    """Fill the engine's views with numbers that say where they come from."""
    engine = env.engine
    for start, view in enumerate(
        (engine.dof_vel, engine.dof_force, engine.body_state, engine.root_state, engine.force_sensor)
    ):
        flat = torch.arange(view[0].numel(), dtype=torch.float32) * 1e-4 + 0.5 * start
        view.copy_(flat.view(view.shape[1:]).expand_as(view))


def test_where_every_number_of_the_state_comes_from(env: VecEnv) -> None:
    env.reset()
    engine, task = env.engine, env.task
    number_everything(env)
    action = torch.rand(2, 2, 20) * 2 - 1
    task.act(engine, action)
    state = task.state(engine)[0]
    sensors, bodies = engine.force_sensor[0], engine.body_state[0]
    for hand in range(2):
        block = state[187 * hand : 187 * (hand + 1)]
        dofs = slice(24 * hand, 24 * hand + 24)
        lower, upper = engine.dof_lower[dofs], engine.dof_upper[dofs]
        expected = (2 * engine.dof_pos[0, dofs] - upper - lower) / (upper - lower)
        assert torch.allclose(block[0:24], expected, atol=1e-5)
        assert torch.allclose(block[24:48], 0.2 * engine.dof_vel[0, dofs])
        assert torch.allclose(block[48:72], (10 * engine.dof_force[0, dofs]).clamp(-5, 5))
        assert torch.equal(block[72:137], bodies[5 * hand : 5 * hand + 5].flatten())
        assert torch.allclose(block[137:167], (10 * sensors[5 * hand : 5 * hand + 5]).flatten().clamp(-5, 5))
        assert torch.equal(block[167:187], action[0, hand])


def test_the_state_is_clipped(env: VecEnv) -> None:
    env.reset()
    env.engine.dof_vel.fill_(100.0)
    state = env.task.state(env.engine)
    assert state[:, 24:48].eq(5.0).all() and state.abs().max() == 5.0


def test_last_action_index_names_the_columns_of_the_last_action(env: VecEnv) -> None:
    env.reset()
    action = torch.rand(2, 2, 20) * 2 - 1
    step = env.step(action)
    assert torch.equal(step.state[:, env.spec.last_action_index.flatten()].view(2, 2, 20), action)
    assert env.reset().state[:, env.spec.last_action_index.flatten()].abs().max() == 0.0


def test_actions_are_joint_targets(env: VecEnv) -> None:
    env.reset()
    action = torch.zeros(2, 2, 20)
    action[0, 0, 2], action[0, 1, 19], action[0, 0, 0] = 1.0, -1.0, 7.0
    env.task.act(env.engine, action)
    env.engine.step(torch.zeros(2, dtype=torch.bool))
    ctrl = env.engine.batch.bind("ctrl")[0]
    names = [env.engine.dof_names[dof] for dof in env.engine.actuator_dofs]
    target = dict(zip(names, ctrl, strict=True))
    assert target["hand0/FFJ3"] == pytest.approx(0.349)
    assert target["hand1/THJ0"] == pytest.approx(-1.571)
    assert target["hand0/WRJ1"] == pytest.approx(0.14)  # clipped
    assert target["hand1/FFJ2"] == pytest.approx(1.571 / 2)


class TestStarts:
    @staticmethod
    def begin(envs: int = 400, **cfg) -> VecEnv:
        env = make(envs, seed=3, **cfg)
        env.reset()
        return env

    def test_both_hands_share_one_asymmetric_sample(self) -> None:
        env = self.begin(profile=Profile.compat)
        engine = env.engine
        hands = engine.dof_pos.view(-1, 2, 24)
        assert torch.equal(hands[:, 0], hands[:, 1])
        lower, upper = engine.dof_lower[:24], engine.dof_upper[:24]
        span = 0.2 * (upper - lower)
        u = (hands[:, 0] - 0.2 * lower) / span  # q = s (lo + (hi - lo) u)
        assert u.abs().max() <= 1.0 + 1e-5 and u.min() < -0.95 and u.max() > 0.95
        joint = JOINTS.index("FFJ2")
        assert hands[:, 0, joint].min() < -0.25  # beyond the joint's lower limit, as published

    def test_the_fixed_profile_stays_within_the_limits(self) -> None:
        engine = self.begin().engine
        assert (engine.dof_pos >= engine.dof_lower - 1e-6).all() and (engine.dof_pos <= engine.dof_upper + 1e-6).all()

    def test_one_field_of_the_profile_can_be_chosen(self) -> None:
        engine = self.begin(profile=Profile.compat, clamp_reset=True).engine
        assert (engine.dof_pos >= engine.dof_lower - 1e-6).all()

    def test_egg_and_goal(self) -> None:
        engine = self.begin().engine
        egg, goal = engine.root_state[:, 2], engine.root_state[:, 3]
        offset = egg[:, :3] - torch.tensor([0.0, -0.39, 0.54])
        assert offset.abs().max() <= 0.01 + 1e-6 and offset.abs().amax(0).min() > 0.009
        assert torch.allclose(goal[:, :3], torch.tensor([0.0, -0.64, 0.54]).expand(400, 3))
        assert egg[:, 7:].abs().max() < 1e-6
        assert not torch.allclose(egg[:, 3:7], goal[:, 3:7], atol=0.1)

    def test_targets_equal_the_joints(self) -> None:
        env = self.begin(4)
        ctrl = torch.from_numpy(env.engine.batch.bind("ctrl").copy()).float()
        assert torch.allclose(ctrl, env.engine.dof_pos[:, env.engine.actuator_dofs])


def test_two_random_spins_are_2_23_rad_apart() -> None:
    """The published orientation noise is not uniform; this mean angle distinguishes it from one that is (2.21)."""
    noise = Noise(0, torch.zeros(40_000, dtype=torch.int64))
    a, b = spin(noise.uniform(2)).double(), spin(noise.uniform(2)).double()
    angle = 2 * (a * b).sum(1).abs().clamp_max(1).acos()
    assert angle.mean().item() == pytest.approx(2.23, abs=0.015)


@pytest.mark.parametrize(
    ("index", "agents", "width"), [([[0], [1, 2, 3, 4, 5]], 4, 18), ([[0], [1], [2], [3], [4], [5]], 12, 5)]
)
def test_a_hand_can_be_several_agents(index: list[list[int]], agents: int, width: int) -> None:
    env = make(1, hand_agent_index=index)
    dims, spec = env.spec.dims, env.spec
    assert (dims.agents, dims.action, dims.obs, dims.state) == (agents, width, 211, 398)
    assert int(spec.action_mask.sum()) == 40
    env.reset()
    action = torch.arange(agents * width).view(1, agents, width) * 1e-3
    state = env.step(action).state[0]
    used = spec.action_mask
    assert torch.equal(state[spec.last_action_index[used]], action[0][used])
    assert sorted(spec.last_action_index[used].tolist()) == [*range(167, 187), *range(354, 374)]
    first_of_second_part = ACTUATED.index("FFJ3")
    assert spec.last_action_index[1, 0] == 167 + first_of_second_part
    half = agents // 2
    obs = env.task.observe(env.task.state(env.engine))[0]
    assert all(torch.equal(obs[k], obs[0]) for k in range(half)) and torch.equal(obs[half], obs[-1])


@pytest.mark.parametrize("index", [[[0, 1, 2, 3, 4]], [[0, 1, 2, 3, 4, 5], [5]], [[0, 1, 2, 3, 4, 5], []]])
def test_parts_are_handed_out_once(index: list[list[int]]) -> None:
    with pytest.raises(UsageError, match="exactly once"):
        Catch(CatchConfig(hand_agent_index=index))


def test_an_untrained_policy_earns_the_published_reward() -> None:
    """Mean reward of control steps 2 to 9 under N(0, 0.64^2), clipped: 0.050 to 0.054 in the authors' logs."""
    env = make(128)
    env.reset()
    generator = torch.Generator().manual_seed(1)
    rewards = [env.step(0.64 * torch.randn(128, 2, 20, generator=generator)).reward for _ in range(9)]
    assert 0.045 < torch.stack(rewards[1:]).mean().item() < 0.060


def test_saved_and_loaded_it_continues_bit_for_bit() -> None:
    def play(env: VecEnv, ticks: int, seed: int) -> list:
        generator = torch.Generator().manual_seed(seed)
        return [env.step(torch.randn(4, 2, 20, generator=generator)) for _ in range(ticks)]

    straight, resumed = make(4, episode_length=9), make(4, episode_length=9)
    for env in (straight, resumed):
        env.reset()
    play(straight, 14, 0)
    resumed.load_state_dict(straight.state_dict())
    for mine, theirs in zip(play(resumed, 14, 1), play(straight, 14, 1), strict=True):
        for name in ("state", "obs", "reward", "first", "last", "terminal"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name)), name


def test_a_broken_environment_becomes_a_first_row_and_touches_no_other() -> None:
    broken, control = make(64), make(64)
    generator = torch.Generator().manual_seed(0)
    for env in (broken, control):
        env.reset()
    for tick in range(6):
        action = torch.randn(64, 2, 20, generator=generator)
        if tick == 3:
            broken.engine.batch.bind("qvel")[17, 5] = float("nan")
        mine, theirs = broken.step(action), control.step(action)
        assert torch.isfinite(mine.state).all()
        assert mine.first.tolist() == [tick == 3 and env == 17 for env in range(64)]
        sound = torch.arange(64) != 17
        assert torch.equal(mine.state[sound], theirs.state[sound])
        assert torch.equal(mine.reward[sound], theirs.reward[sound])
    assert int(broken.quarantined) == 1 and int(broken.engine.stats()["nonfinite"]) == 1


def test_a_state_can_be_put_back_for_pictures() -> None:
    """Hands' joints, both eggs and both goals, into an environment that was elsewhere."""
    shown, stage = (make(2, seed, throw=Throw.two_underarm) for seed in (0, 1))
    shown.reset(), stage.reset()
    for _ in range(5):
        state = shown.step(torch.rand(2, 2, 26) * 2 - 1).state
    stage.task.pose(stage.engine, state)
    stage.engine.refresh(torch.ones(2, dtype=torch.bool))
    posed = stage.task.state(stage.engine)
    egg = [*range(7), *range(13, 20)]
    columns = [*range(24), *range(199, 223), *(398 + i for i in egg), *(422 + i for i in egg)]
    assert (stage.reset().state[:, columns] - state[:, columns]).abs().amax(1).min() > 0.1
    torch.testing.assert_close(posed[:, columns], state[:, columns], rtol=0, atol=1e-5)
