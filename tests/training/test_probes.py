"""The probes against a world that is the simulator itself, and against numbers worked out by hand."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dima_isaac.agent.actor import Actor
from dima_isaac.agent.config import ActorConfig
from dima_isaac.training import probes
from dima_isaac.types import Window
from tests.toy import toy_env


@dataclass
class Now:
    state: Tensor


class Identity:
    def z(self, s: Tensor) -> Tensor:
        return s


class Oracle:
    """The toy's own equations; the actions of ``blind`` agents do nothing, ``drift`` and ``noise`` come on top."""

    history, target, longest = 3, Identity(), float("inf")

    def __init__(self, blind: tuple[int, ...] = (), drift: float = 0.0, noise: float = 0.0) -> None:
        self.blind, self.drift, self.noise = blind, drift, noise

    def context(self, window: Window) -> Now:
        return Now(window.state[:, -1])

    def step(self, context: Now, action: Tensor, generator: torch.Generator, errors: bool) -> Now:
        assert not errors, "a probe holds the prediction against the truth"
        pos, vel, _ = context.state.split(2, 1)
        push = action.squeeze(-1).clamp(-1, 1)
        push = push * torch.tensor([agent not in self.blind for agent in range(2)])
        vel = vel + 0.1 * (5 * push - vel)
        drift = self.drift + self.noise * torch.randn(pos.shape, generator=generator)
        return Now(torch.cat([pos + 0.1 * vel + drift, vel, push], 1))

    def predict_reward(self, states: Tensor, actions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        pos = states[:, 1:, :2]
        return torch.exp(-(pos - 0.5).abs()).mean(-1), (pos.abs() <= 3.0).all(-1).float()


def setting(ticks: int = 30):
    torch.manual_seed(0)
    env = toy_env(6, 3)
    actor = Actor(ActorConfig(hidden=[8]), env.spec.dims)
    return env, actor, probes.record(env, actor.act, episode=1, ticks=ticks, seed=0)


def test_an_engine_that_does_not_rewind_is_asked_for_nothing_more_than_an_episode():
    env, actor, kept = setting()
    both = probes.probe(Oracle(), env, actor.act, kept, 1, 0)
    env.engine.capabilities = replace(env.engine.capabilities, rewinds=False)
    alone = probes.probe(Oracle(), env, actor.act, kept, 1, 0)
    assert set(both) - set(alone) == {f"sensitivity_{kind}_{agent}" for kind in ("dreamt", "true") for agent in (0, 1)}


def test_a_perfect_model_has_no_error_and_baselines_have_theirs():
    _, _, kept = setting(60)
    linear = probes.LinearModel(Oracle(), kept, rows=2_000, penalty=1e-9)
    found = probes.open_loop(Oracle(), kept, linear, horizon=4)
    assert found.model.shape == (4,) and found.model.max() < 1e-5
    assert found.linear.max() < 1e-3, "the toy is linear"
    window = probes._whole_windows(kept, 512, 7)
    assert window.valid.all()
    gap = (window.state[:, 4] - window.state[:, 2]).square().mean().sqrt()
    torch.testing.assert_close(found.repeat[1], gap)
    assert found.repeat.min() > 0.1


def test_a_known_drift_is_measured_as_such():
    _, _, kept = setting(60)
    linear = probes.LinearModel(Oracle(), kept)
    found = probes.open_loop(Oracle(drift=0.01), kept, linear, horizon=3)
    torch.testing.assert_close(found.model, 0.01 * torch.arange(1.0, 4.0) * (2 / 6) ** 0.5, rtol=1e-3, atol=1e-5)


def test_the_error_of_the_mean_of_several_dreams_is_smaller():
    _, _, kept = setting(60)
    found = probes.open_loop(Oracle(noise=0.01), kept, probes.LinearModel(Oracle(), kept), horizon=2, dreams=16)
    share = (found.average / found.model).tolist()
    assert all(0.2 < part < 0.3 for part in share)  # 1 / sqrt(16)


def test_sensitivity_leaves_the_environment_where_it_was():
    env, actor, _ = setting()
    probes.sensitivity(Oracle(), env, actor.act, episode=5)
    untouched, _, _ = setting()
    probes.record(untouched, actor.act, episode=5, ticks=10, seed=5)
    assert torch.equal(env.engine.dof_pos, untouched.engine.dof_pos)
    assert torch.equal(env.engine.dof_vel, untouched.engine.dof_vel)


def test_sensitivity_is_zero_for_an_agent_that_the_model_ignores():
    env, actor, _ = setting()
    before = copy.deepcopy(env.state_dict())
    seeing = probes.sensitivity(Oracle(), env, actor.act, episode=5)
    torch.testing.assert_close(seeing.dreamt, seeing.true, rtol=1e-4, atol=1e-6)
    expected = (0.25**2 + 0.025**2) ** 0.5  # 0.1 * 5 * 0.5 in velocity, a tenth of it in position
    torch.testing.assert_close(seeing.true, torch.full((2,), expected), rtol=1e-3, atol=0)
    half = probes.sensitivity(Oracle(blind=(1,)), env, actor.act, episode=5)
    assert half.dreamt[0] > 0.2 and half.dreamt[1] == 0 and half.true[1] > 0.2
    assert before.keys() == env.state_dict().keys()


def test_padded_actions_do_not_mask_the_first_state_dimension():
    env, actor, _ = setting()
    whole = probes.sensitivity(Oracle(), env, actor.act, episode=5)
    env.task.spec = replace(env.spec, last_action_index=torch.tensor([[4, -1], [5, -1]]))
    torch.testing.assert_close(probes.sensitivity(Oracle(), env, actor.act, episode=5).true, whole.true)


def test_output_only_dimensions_do_not_count_in_the_sensitivity():
    env, actor, _ = setting()
    env.task.spec = replace(env.spec, output_only=torch.tensor([False, False, True, True, False, False]))
    told = probes.sensitivity(Oracle(), env, actor.act, episode=5)
    torch.testing.assert_close(told.true, torch.full((2,), 0.025), rtol=1e-3, atol=0)  # positions alone
    torch.testing.assert_close(told.dreamt, told.true, rtol=1e-4, atol=1e-6)
