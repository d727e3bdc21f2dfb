"""The policy's densities against torch.distributions, and the published starting point."""

import math

import pytest
import torch
from torch import distributions as dist

from dima_isaac.agent.actor import Actor
from dima_isaac.agent.config import ActorConfig, CriticConfig
from dima_isaac.agent.critic import Critic, ValueNorm
from dima_isaac.types import Dims

DIMS = Dims(agents=2, state=17, obs=19, action=3)
ANT = Dims(agents=2, state=111, obs=113, action=4)
PEN = Dims(agents=2, state=417, obs=218, action=26)


def published_actor(dims: Dims) -> Actor:
    return Actor(ActorConfig(agent_id=False), dims, published=True)


@pytest.mark.parametrize(
    ("dims", "actor", "critic"), [(DIMS, 36_780, 73_263), (ANT, 49_130, 98_031), (PEN, 65_640, 188_331)]
)
def test_published_parameter_counts(dims, actor, critic):
    assert sum(p.numel() for p in published_actor(dims).parameters()) == actor
    assert sum(p.numel() for p in Critic(CriticConfig(), dims, published=True).parameters()) == critic


def test_initial_deviation_and_entropy():
    actor = published_actor(DIMS)
    torch.testing.assert_close(actor.std, torch.full((3,), 0.3655), atol=1e-4, rtol=0)
    _, entropy = actor.evaluate(torch.randn(5, 2, 19), torch.zeros(5, 2, 3))
    torch.testing.assert_close(entropy, torch.full((5, 2), 3 * 0.4124), atol=1e-3, rtol=0)


def test_log_probability_and_entropy_match_torch():
    torch.manual_seed(0)
    actor = Actor(ActorConfig(), DIMS)
    obs = torch.randn(4_000, 2, 19)
    action, logp = actor.act(obs, torch.Generator().manual_seed(1))
    reference = dist.Normal(actor.mode(obs), actor.std)
    torch.testing.assert_close(logp, reference.log_prob(action).sum(-1), atol=2e-3, rtol=1e-3)
    again, entropy = actor.evaluate(obs, action)
    torch.testing.assert_close(again, logp, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(entropy, reference.entropy().sum(-1).expand(4_000, 2))
    assert abs(entropy.mean() + logp.mean()) < 0.15, "entropy is minus the mean log-density"


def test_padding_does_not_count():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    actor = Actor(ActorConfig(), DIMS, mask)
    obs = torch.zeros(1, 2, 19)
    a, b = torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)
    b[..., 2] = 0.9
    (first, _), (second, _) = actor.evaluate(obs, a), actor.evaluate(obs, b)
    assert first[0, 0] == second[0, 0] and first[0, 1] != second[0, 1]


def test_agents_with_equal_observations_may_differ():
    torch.manual_seed(0)
    obs = torch.ones(1, 2, 19)
    with_id, without = Actor(ActorConfig(), DIMS).mode(obs), Actor(ActorConfig(agent_id=False), DIMS).mode(obs)
    assert not torch.allclose(with_id[0, 0], with_id[0, 1]) and torch.allclose(without[0, 0], without[0, 1])


def test_value_norm():
    norm = ValueNorm(decay=0.9)
    mean, std = norm.stats()
    assert mean == 0 and abs(std - 0.1) < 1e-6
    norm.update(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
    mean, std = norm.stats()
    torch.testing.assert_close(mean, torch.tensor(2.0))
    torch.testing.assert_close(std, torch.tensor(1.0))
    norm.update(torch.tensor([5.0, 100.0]), torch.tensor([1.0, 0.0]))
    expected = (0.9 * 0.1 * 2 + 0.1 * 5) / (1 - 0.9**2)
    torch.testing.assert_close(norm.stats()[0], torch.tensor(expected))
    value = torch.tensor([-4.0, 7.0])
    torch.testing.assert_close(norm.denormalise(norm.normalise(value)), value)
    assert math.isfinite(norm.stats()[1])
