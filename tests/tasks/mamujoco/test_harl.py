"""Protocol harl: what HARL, MARIE and DIMA really ran."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dima_isaac.errors import UsageError
from dima_isaac.tasks.mamujoco.config import Protocol
from tests.tasks.mamujoco.reference import build, single, vectorise

OLD = {"protocol": Protocol.harl}
STATES = {"HalfCheetah": 17, "Ant": 111, "Walker2d": 17, "Hopper": 11, "Swimmer": 8}
STATES |= {"Humanoid": 376, "HumanoidStandup": 376}


@pytest.mark.parametrize("scenario", STATES)
def test_states_have_version_2s_widths(scenario: str) -> None:
    conf = {"Humanoid": "17x1", "HumanoidStandup": "17x1"}.get(scenario, "")
    env = vectorise(build(scenario, conf, **OLD), 2)
    row = env.reset()
    agents = env.spec.dims.agents
    assert row.state.shape == (2, STATES[scenario])
    assert row.obs.shape == (2, agents, STATES[scenario] + agents)
    row = env.step(torch.rand(2, agents, env.spec.dims.action) * 2 - 1)
    assert (env.spec.dims.state < 100) or not row.state[:, -84:].any()


def test_observations_are_standardised_one_by_one() -> None:
    """Against the definition: (x - mean(x)) / std(x) over the features of [state; one-hot]."""
    task = build("Ant", "4x2", **OLD)
    state = torch.randn(5, 111, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mine = task.observe(state).numpy()
    for i in range(5):
        for agent in range(4):
            x = np.concatenate([state[i].numpy(), np.eye(4)[agent]])
            np.testing.assert_allclose(mine[i, agent], (x - x.mean()) / x.std(), atol=1e-12)


def test_flat_actions_ignore_the_partitions_name() -> None:
    """Ant 2x4 and 2x4d are one game: {leg 4, leg 1 | leg 2, leg 3}, whatever their names say."""
    action = torch.arange(8.0).view(1, 2, 4)
    for conf in ("2x4", "2x4d"):
        assert build("Ant", conf, **OLD).scatter(action).tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]
    assert build("Ant", "2x4").scatter(action).tolist() == [[6.0, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]
    assert "hip4 ankle4 hip1 ankle1 | hip2 ankle2 hip3 ankle3" in build("Ant", "2x4", **OLD).spec.notes[1]


def test_actions_are_not_clipped_before_their_cost() -> None:
    """3 squared, six times, times 0.1: the cost of a command that the motors cut to 1."""
    env, clipped = vectorise(build("HalfCheetah", **OLD), 1), vectorise(build("HalfCheetah"), 1)
    env.reset(), clipped.reset()
    wild = torch.full((1, 2, 3), 3.0)
    difference = env.step(wild).reward - clipped.step(wild).reward
    assert abs(float(difference) + 0.1 * 6 * (9 - 1)) < 1e-9


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_command_that_is_not_finite_breaks_the_environment_it_is_given_to(number: float) -> None:
    env = vectorise(build("HalfCheetah", **OLD), 2)
    env.reset()
    action = torch.zeros(2, 2, 3)
    action[1, 0, 2] = number
    row = env.step(action)
    assert row.first.tolist() == [False, True] and row.reward.tolist()[1] == 0.0 and int(env.quarantined) == 1


def test_rewards_are_version_4s_without_contact_and_with_the_bonus_to_the_last() -> None:
    """Beside Gymnasium's Ant with -v2's settings, to the step in which it falls and is still paid its bonus."""
    import gymnasium

    raw = gymnasium.make("Ant-v5", contact_cost_weight=0.0).unwrapped
    env = vectorise(build("Ant", "4x2", **OLD), 1)
    env.reset()
    raw.reset(seed=4)
    env.set_physics_state(raw.data.qpos[None], raw.data.qvel[None])
    draws = torch.Generator().manual_seed(3)
    fallen = False
    for _ in range(1000):
        action = torch.rand(1, 4, 2, generator=draws) * 2 - 1
        row = env.step(action)
        _, reward, fallen, *_ = raw.step(action.flatten().double().numpy())
        assert bool(row.terminal[0]) == fallen
        assert abs(float(row.reward[0]) - reward - float(fallen)) < 1e-12
        if fallen:
            break
    assert fallen


def test_robots_that_the_protocol_never_played_are_refused() -> None:
    for scenario, said in (("Reacher", "never played"), ("Humanoid", "equal parts")):
        with pytest.raises(UsageError, match=said):
            build(scenario, **OLD)
    assert single("Walker2d").fullpath.endswith("walker2d_v5.xml")
    assert build("Walker2d", **OLD).scene().world.endswith("walker2d.xml")
