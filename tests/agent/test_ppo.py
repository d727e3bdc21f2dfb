"""PPO on rollouts whose best action is known."""

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from dima_isaac.agent import ppo
from dima_isaac.agent.config import AgentConfig, LearnerKind, PpoConfig
from dima_isaac.agent.learner import build_learner
from dima_isaac.agent.ppo import PPO, _standardise
from dima_isaac.types import Dims, Rollout
from tests.agent.games import game

ppo_config = partial(AgentConfig, LearnerKind.ppo)
GAME = game(Dims(agents=2, state=4, obs=4, action=1))


def bandit(agent: PPO, goal: torch.Tensor, cont: float = 1.0) -> Rollout:
    """Reward is minus the squared distance of each agent's action to its goal."""
    obs = torch.randn(64, 3, 2, 4)
    action, logp = agent.act(obs)
    reward = -((action.squeeze(-1) - goal) ** 2).sum(-1)
    state, last = torch.zeros(64, 4, 4), torch.zeros(64, 4, 2, 1)
    return Rollout(obs, state, state, last, action, logp, reward, torch.full((64, 3), cont))


@pytest.mark.slow
def test_agents_learn_different_goals():
    torch.manual_seed(0)
    cfg = ppo_config(gamma=0.0)
    agent = build_learner(cfg, GAME, torch.device("cpu"), seed=1)
    goal = torch.tensor([0.4, -0.6])
    for _ in range(40):
        metrics = agent.update(bandit(agent, goal))
    assert (agent.mode(torch.zeros(2, 4)).squeeze(-1) - goal).abs().max() < 0.15
    assert all(value.dim() == 0 and torch.isfinite(value) for value in metrics.values())


def test_ratios_of_an_unchanged_policy_are_1_in_bfloat16_too():
    agent = build_learner(ppo_config(), GAME, torch.device("cpu"), bf16=True)
    obs = torch.randn(200, 2, 4)
    assert torch.equal(agent.actor.evaluate(obs, (drawn := agent.act(obs))[0])[0], drawn[1])
    exact = build_learner(ppo_config(), GAME, torch.device("cpu"))
    exact.load_state_dict(agent.state_dict())
    assert 0.0 < (exact.mode(obs) - agent.mode(obs)).abs().max() < 0.01
    state, last = torch.randn(200, 4), torch.zeros(200, 2, 1)
    assert 0.0 < (exact.critic(state, last) - agent.critic(state, last)).abs().max() < 0.1


def test_steps_after_a_certain_end_have_no_weight():
    torch.manual_seed(0)
    agent = build_learner(ppo_config(), GAME, torch.device("cpu"), seed=1)
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    one = _standardise(torch.tensor([[1.0, 50.0], [3.0, -9.0]]), weight, 0.0)
    torch.testing.assert_close(one[:, 0], torch.tensor([-1.0, 1.0]))
    rollout = bandit(agent, torch.tensor([0.0, 0.0]), cont=0.0)
    other = Rollout(**vars(rollout))
    other.reward = rollout.reward.clone()
    other.reward[:, 1:] = 1e3  # unreachable
    twin = build_learner(ppo_config(), GAME, torch.device("cpu"), seed=1)
    twin.load_state_dict(agent.state_dict())
    twin.generator.set_state(agent.generator.get_state())  # the same minibatches
    agent.update(rollout)
    twin.update(other)
    for mine, theirs in zip(agent.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


class ByHand:
    """The two losses, one number at a time, from the textbook: GAE in its lambda-return form, PPO's clipped ratio."""

    def __init__(self, agent: PPO, dream: Rollout) -> None:
        self.agent, self.dream, gamma, cfg = agent, dream, agent.cfg.gamma, agent.cfg.ppo
        batch, horizon = dream.reward.shape
        self.where = [(b, t) for b in range(batch) for t in range(horizon)]
        mean, std = (float(x) for x in agent.critic.units.stats())
        self.old = {(b, t): self.value(b, t) for b in range(batch) for t in range(horizon + 1)}
        worth = {at: mean + std * v for at, v in self.old.items()}
        self.target, self.weight = {}, {}
        for b in range(batch):
            ahead, alive = worth[b, horizon], 1.0
            for t in reversed(range(horizon)):
                twice = gamma if cfg.published else 1.0
                ahead = twice * (1 - cfg.lam) * worth[b, t + 1] + cfg.lam * ahead
                ahead = float(dream.reward[b, t]) + gamma * float(dream.cont[b, t]) * ahead
                self.target[b, t] = ahead
            for t in range(horizon):
                self.weight[b, t] = alive
                alive *= float(dream.cont[b, t])
        raw = {at: self.target[at] - worth[at] for at in self.where}
        centre = self.mean(raw)
        deviation = math.sqrt(self.mean({at: (a - centre) ** 2 for at, a in raw.items()}))
        self.advantage = {at: (a - centre) / (deviation + ppo.ADVANTAGE_EPS) for at, a in raw.items()}

    def mean(self, numbers: dict) -> float:
        return sum(self.weight[at] * numbers[at] for at in self.where) / sum(self.weight.values())

    def value(self, b: int, t: int) -> float:
        return float(self.agent.critic(self.dream.x[b, t], self.dream.last_action[b, t]).detach())

    def policy_loss(self) -> float:
        cfg, gains, spread = self.agent.cfg.ppo, {}, {}
        for at in self.where:
            logp, entropy = self.agent.actor.evaluate(self.dream.obs[at], self.dream.action[at])
            ratios = (logp - self.dream.logp[at]).exp().tolist()
            bounded = [min(max(ratio, 1 - cfg.clip), 1 + cfg.clip) for ratio in ratios]
            each = [min(r * self.advantage[at], c * self.advantage[at]) for r, c in zip(ratios, bounded, strict=True)]
            gains[at], spread[at] = sum(each) / len(each), float(entropy.mean().detach())
        return -self.mean(gains) - cfg.entropy * self.mean(spread)

    def value_loss(self) -> float:
        cfg, misses = self.agent.cfg.ppo, {}
        mean, std = (float(x) for x in self.agent.critic.units.stats())
        for at in self.where:
            wanted, value = (self.target[at] - mean) / std, self.value(*at)
            misses[at] = _huber(value - wanted, ppo.HUBER)
            if cfg.published:
                near = self.old[at] + min(max(value - self.old[at], -cfg.clip), cfg.clip)
                misses[at] = max(misses[at], _huber(near - wanted, ppo.HUBER))
        return self.mean(misses)


def _huber(miss: float, delta: float) -> float:
    return 0.5 * miss**2 if abs(miss) <= delta else delta * (abs(miss) - 0.5 * delta)


@pytest.mark.parametrize("published", [False, True])
def test_losses_are_the_textbooks(monkeypatch, published):
    torch.manual_seed(0)
    monkeypatch.setattr(ppo, "HUBER", 0.5)  # within reach
    settings = PpoConfig(epochs=3, minibatches=1, lam=0.7, entropy=0.05, published=published)
    cfg = ppo_config(gamma=0.9, ppo=replace(settings, lr=0.03))
    agent = build_learner(cfg, GAME, torch.device("cpu"), seed=1)
    agent.critic.units.update(torch.tensor([4.0, 9.0]), torch.ones(2))
    obs, state, last = torch.randn(5, 4, 2, 4), torch.randn(5, 5, 4), torch.randn(5, 5, 2, 1)
    action, logp = agent.act(obs)
    cont = 0.5 + 0.5 * torch.rand(5, 4)
    dream = Rollout(obs, state, state, last, action, logp + 0.2 * torch.randn(5, 4, 2), 3 * torch.randn(5, 4), cont)
    by_hand, checked = ByHand(agent, dream), []

    def optimizer_step(optim, parameters, loss, *rest, **more):
        expected = by_hand.policy_loss() if optim is agent.optimisers["actor"] else by_hand.value_loss()
        assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        checked.append(optim)
        return real(optim, parameters, loss, *rest, **more)

    real = ppo.optimizer_step
    monkeypatch.setattr(ppo, "optimizer_step", optimizer_step)
    agent.update(dream)
    assert checked == [agent.optimisers["actor"], agent.optimisers["critic"]] * 3


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_rollout_with_a_nonfinite_reward_changes_nothing(bad):
    torch.manual_seed(0)
    agent = build_learner(ppo_config(ppo=PpoConfig(minibatches=1)), GAME, torch.device("cpu"), seed=1)
    good = bandit(agent, torch.tensor([0.4, -0.6]))
    agent.update(good)
    before = {name: value.clone() for name, value in agent.state_dict().items() if isinstance(value, torch.Tensor)}
    broken = Rollout(**{**vars(good), "reward": good.reward.clone()})
    broken.reward[3, 1] = bad
    agent.update(broken)
    after = agent.state_dict()
    assert "critic.units.mean" in before and all(torch.equal(before[name], after[name]) for name in before)
    agent.update(good)
    assert not torch.equal(before["critic.units.mean"], agent.critic.units.mean)
    assert all(torch.isfinite(value).all() for value in agent.parameters())


@pytest.mark.slow
def test_the_actors_rate_follows_the_divergence():
    def rate(agent):
        return float(agent.optimisers["actor"].param_groups[0]["lr"])

    def taught(wanted, rollouts, **settings):
        torch.manual_seed(0)
        cfg = ppo_config(ppo=PpoConfig(lr=1e-3, desired_kl=wanted, **settings))
        agent = build_learner(cfg, GAME, torch.device("cpu"))
        for _ in range(rollouts):
            metrics = agent.update(bandit(agent, torch.tensor([0.4, -0.6])))
        return agent, metrics

    assert rate(taught(1e-12, 1)[0]) == pytest.approx(0.9e-3)
    assert rate(taught(1e3, 1)[0]) == pytest.approx(1.1e-3)
    assert rate(taught(1e-12, 20)[0]) == pytest.approx(0.25e-3)
    kl = float(taught(1e-12, 1)[1]["agent/kl"])
    assert rate(taught(1.1 * kl, 1)[0]) == pytest.approx(1e-3 * math.sqrt(1.1))
    agent, metrics = taught(1e3, 20)
    assert rate(agent) == float(metrics["agent/lr"]) == pytest.approx(4e-3)
    steered = [float(taught(wanted, 25, clip=0.2)[1]["agent/kl"]) for wanted in (0.002, 0.006)]
    assert steered[0] < steered[1]
    agent, metrics = taught(0.0, 20, published=True)
    assert agent.optimisers["actor"].param_groups[0]["lr"] == 1e-3 and "agent/lr" not in metrics
    broken = bandit(taught(1e3, 1)[0], torch.tensor([0.4, -0.6]))
    agent, _ = taught(1e3, 1)
    before = rate(agent)
    agent.update(Rollout(**{**vars(broken), "reward": broken.reward * float("nan")}))
    assert rate(agent) == before


def test_a_rate_that_was_constant_can_follow_the_divergence_from_then_on():
    constant, following = (
        build_learner(ppo_config(ppo=PpoConfig(desired_kl=wanted)), GAME, torch.device("cpu"))
        for wanted in (0.0, 0.006)
    )
    rollout = bandit(constant, torch.tensor([0.4, 0.1]))
    constant.update(rollout)
    following.load_optim_state(copy.deepcopy(constant.optim_state()))
    assert float(following.update(rollout)["agent/lr"]) != constant.cfg.ppo.lr


def test_value_gradient_is_the_mean_squared_gradient_of_the_value():
    torch.manual_seed(0)
    agent = build_learner(ppo_config(ppo=PpoConfig(published=True)), GAME, torch.device("cpu")).double()
    state, last = torch.randn(6, 4).double(), torch.randn(6, 2, 1).double()
    step, expected = 1e-6, torch.zeros(4).double()
    for i in range(4):
        push = step * torch.eye(4).double()[i]
        above, below = agent.critic(state + push, last), agent.critic(state - push, last)
        expected[i] = (((above - below) / (2 * step)) ** 2).mean()
    torch.testing.assert_close(agent.value_gradient(state, last), expected.detach(), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("desired_kl", [0.0, 0.006])
def test_continues_bit_for_bit(desired_kl):
    torch.manual_seed(0)
    cfg = ppo_config(ppo=PpoConfig(desired_kl=desired_kl))
    agent = build_learner(cfg, GAME, torch.device("cpu"), seed=1)
    rollout = bandit(agent, torch.tensor([0.4, 0.1]))
    agent.update(rollout)
    twin = build_learner(cfg, GAME, torch.device("cpu"), seed=2)
    twin.load_state_dict(agent.state_dict())
    twin.generator.set_state(agent.generator.get_state())  # the same minibatches
    stored = copy.deepcopy(agent.optim_state())
    twin.load_optim_state(stored)
    assert (float(stored["actor"]["param_groups"][0]["lr"]) == cfg.ppo.lr) == (desired_kl == 0.0)
    for each in (agent, twin):
        each.update(rollout)
    obs = torch.randn(3, 2, 4)
    assert torch.equal(agent.act(obs)[0], twin.act(obs)[0])
