"""SAC on games whose best action and value are known."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from dima_isaac.agent.config import ActorConfig, AgentConfig, CriticConfig, SacConfig
from dima_isaac.agent.sac import ACTOR_STEP, SAC
from dima_isaac.agent.squashed import LOG_STD_INIT, SquashedActor
from dima_isaac.types import Dims, Step, Transitions
from tests.agent.games import game

DIMS = Dims(agents=2, state=4, obs=4, action=1)
GOAL = torch.tensor([0.4, -0.6])
CFG = AgentConfig(
    actor=ActorConfig(hidden=[32]),
    critic=CriticConfig(hidden=[32]),
    gamma=0.9,
    sac=SacConfig(lr=3e-3, target_entropy=-2.0),
)


def learner(seed: int = 1, mask: torch.Tensor | None = None) -> SAC:
    torch.manual_seed(seed)
    return SAC(CFG, game(DIMS, mask), torch.device("cpu"), clip_actions=True, bf16=False, seed=seed)


def rows(count: int) -> Transitions:
    """Random actions in random states; each ends its episode and earns minus the squared distance to the goal."""
    state, action = torch.randn(count, 4), 2.0 * torch.rand(count, 2, 1) - 1.0
    reward = -(action.squeeze(-1) - GOAL).square().sum(1)
    return Transitions(state, action, reward, torch.zeros(count), state, torch.ones(count, dtype=torch.bool))


def tracked(agent: SAC) -> SAC:
    """Its statistics as of states N(0, 1) and returns of deviation about 1."""
    state, no = torch.randn(256, 4), torch.zeros(256, dtype=torch.bool)
    agent.track(Step(state, state[:, None].expand(-1, 2, -1), torch.randn(256), no, no, no))
    return agent


@pytest.mark.slow
def test_agents_find_their_own_goals_and_critics_the_reward():
    agent = tracked(learner())
    for _ in range(400):
        metrics = agent.update(rows(256))
    found = agent.mode(torch.randn(64, 1, 4).expand(-1, 2, -1)).squeeze(-1)
    assert (found - GOAL).square().sum(1).mean() < 0.15, "at first it is 0.52"
    batch = rows(512)
    agent.critics.eval()
    value = agent.critics.mean(agent.critics(batch.state, batch.action)).mean(0) * agent.scale()
    assert (value - batch.reward).abs().mean() < 0.15
    assert all(metric.dim() == 0 and torch.isfinite(metric) for metric in metrics.values())


def test_rows_that_are_no_steps_are_not_learnt_from():
    agent, twin = tracked(learner()), tracked(learner())
    twin.load_state_dict(agent.state_dict())
    torch.manual_seed(5)
    batch = rows(64)
    batch.counted[::2] = False
    other = Transitions(**vars(batch))
    other.reward = torch.where(batch.counted, batch.reward, 1e3)
    agent.update(batch)
    twin.update(other)
    for mine, theirs in zip(agent.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_padded_actions_have_no_entropy():
    used = torch.tensor([[True], [False]])
    _, logp = learner(mask=used).act(torch.zeros(3, 2, 4))
    assert (logp[:, 1] == 0).all() and (logp[:, 0] != 0).all()


def test_the_density_of_a_squashed_action_integrates_to_one():
    actor = SquashedActor(ActorConfig(hidden=[8]), Dims(agents=1, state=1, obs=1, action=1))
    obs = torch.zeros(200_000, 1, 1)
    action, logp = actor.act(obs, torch.Generator().manual_seed(0))
    inside = (action.abs() < 0.05).float()
    assert (inside / logp.exp()).mean().item() == pytest.approx(0.1, rel=0.03), "the width of the interval"
    assert action.std().item() == pytest.approx(math.exp(LOG_STD_INIT), rel=0.3)


def test_target_critics_move_slowly_and_share_statistics():
    agent = tracked(learner())
    before = [parameter.clone() for parameter in agent.target_critics.parameters()]
    agent.update(rows(64))
    for old, target, net in zip(before, agent.target_critics.parameters(), agent.critics.parameters(), strict=True):
        assert (target - old).norm() <= 0.021 * (net - old).norm() + 1e-6
    for mine, theirs in zip(agent.target_critics.buffers(), agent.critics.buffers(), strict=True):
        assert torch.equal(mine, theirs)


def test_critics_learn_scaled_rewards_and_the_entropy_of_what_follows(monkeypatch):
    agent, told = tracked(learner()), []
    project = agent.critics.target
    monkeypatch.setattr(agent.critics, "target", lambda logits, *given: told.append(given) or project(logits, *given))
    monkeypatch.setattr(
        agent.trained, "act", lambda obs, generator: (torch.zeros(len(obs), 2, 1), torch.full((len(obs), 2, 1), 0.3))
    )
    batch = rows(64)
    batch.discount = torch.full((64,), 0.7)
    agent._update_critics(batch)
    weight, scale = math.exp(agent.log_weight.item()), float(agent.scale())
    torch.testing.assert_close(told[0][0], batch.reward / scale - 0.7 * weight * 0.6)
    assert scale != pytest.approx(1.0, rel=1e-3) and torch.equal(told[0][1], batch.discount)


@pytest.mark.parametrize(("target", "sign"), [(-9.0, -1), (1.0, 1)])
def test_the_entropy_s_weight_falls_while_entropy_is_above_its_target(target, sign):
    agent = tracked(learner())
    agent.cfg = replace(CFG, sac=replace(CFG.sac, target_entropy=target))  # an untrained policy has about -1 per entry
    before = agent.log_weight.item()
    agent.update(rows(64))
    assert sign * (agent.log_weight.item() - before) > 0


def test_a_continued_learner_learns_the_same():
    agent = tracked(learner())
    agent.update(rows(64))
    twin = learner(seed=2)
    twin.load_state_dict(agent.state_dict())
    twin.load_optim_state(copy.deepcopy(agent.optim_state()))
    batch = rows(64)
    agent.update(batch)
    twin.update(batch)
    for mine, theirs in zip(agent.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_what_is_played_is_an_average_of_the_weights_that_learn():
    agent = tracked(learner())
    before = [weight.clone() for weight in agent.actor.net.parameters()]
    agent.update(rows(64))
    trained = list(agent.trained.net.parameters())
    for old, played, learnt in zip(before, agent.actor.net.parameters(), trained, strict=True):
        torch.testing.assert_close(played, old + ACTOR_STEP * (learnt - old), rtol=0.0, atol=1e-7)
    assert any(not torch.equal(old, learnt) for old, learnt in zip(before, trained, strict=True))
    assert agent.actor.inputs is agent.trained.inputs, "one set of statistics"
    agent.trained.net[-1].bias.data += 1.0
    mode = agent.mode(obs := torch.randn(8, 2, 4))
    assert torch.equal(mode, agent.actor.mode(obs)) and not torch.equal(mode, agent.trained.mode(obs))
    drawn, _ = agent.act(obs, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, agent.trained.act(obs, torch.Generator().manual_seed(0))[0]), "what trains explores"


def test_a_run_from_before_the_average_plays_and_trains_what_it_had():
    agent, other = tracked(learner()), learner(seed=2)
    agent.update(rows(64))
    other.load_state_dict({key: value for key, value in agent.state_dict().items() if not key.startswith("trained.")})
    for name, weight in agent.actor.state_dict().items():
        assert torch.equal(other.actor.state_dict()[name], weight)
        assert torch.equal(other.trained.state_dict()[name], weight)


def test_an_exported_policy_is_played_and_trained_on():
    agent, other = tracked(learner()), learner(seed=2)
    other.load_policy(agent.actor.state_dict())
    obs = torch.randn(8, 2, 4)
    assert torch.equal(other.mode(obs), agent.mode(obs)) and torch.equal(other.trained.mode(obs), agent.mode(obs))


def test_value_gradient_is_the_mean_squared_gradient_of_the_value():
    agent = tracked(learner())
    state, small = torch.randn(16, 4), 1e-2
    agent.critics.eval()

    def value(s: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return agent.critics.mean(agent.critics(s, agent.trained.mode(s[:, None].expand(-1, 2, -1)))).mean(0)

    slopes = [(value(state + d) - value(state - d)) / (2 * small) for d in small * torch.eye(4)]
    expected = torch.stack([slope.square().mean() for slope in slopes])
    torch.testing.assert_close(agent.value_gradient(state), expected, rtol=0.05, atol=1e-6)
    assert agent.critics.training
