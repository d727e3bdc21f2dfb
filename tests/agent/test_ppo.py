"""PPO on rollouts whose best action is known."""

import copy

import torch

from dima_isaac.agent.config import AgentConfig
from dima_isaac.agent.ppo import ActorCritic, _standardise
from dima_isaac.types import Dims, Rollout

DIMS = Dims(agents=2, state=4, obs=4, action=1)


def bandit(agent: ActorCritic, goal: torch.Tensor, cont: float = 1.0) -> Rollout:
    """Reward is minus the squared distance of each agent's action to its goal."""
    obs = torch.randn(64, 3, 2, 4)
    action, logp = agent.act(obs)
    reward = -((action.squeeze(-1) - goal) ** 2).sum(-1)
    state, last = torch.zeros(64, 4, 4), torch.zeros(64, 4, 2, 1)
    return Rollout(obs, state, last, action, logp, reward, torch.full((64, 3), cont))


def test_agents_find_their_own_goals():
    torch.manual_seed(0)
    cfg = AgentConfig(gamma=0.0)
    agent = ActorCritic(cfg, DIMS, torch.device("cpu"), seed=1)
    goal = torch.tensor([0.4, -0.6])
    for _ in range(40):
        metrics = agent.update(bandit(agent, goal))
    assert (agent.mode(torch.zeros(2, 4)).squeeze(-1) - goal).abs().max() < 0.15
    assert all(value.dim() == 0 and torch.isfinite(value) for value in metrics.values())


def test_steps_after_a_certain_end_do_not_teach():
    torch.manual_seed(0)
    agent = ActorCritic(AgentConfig(), DIMS, torch.device("cpu"), seed=1)
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    one = _standardise(torch.tensor([[1.0, 50.0], [3.0, -9.0]]), weight, 0.0)
    torch.testing.assert_close(one[:, 0], torch.tensor([-1.0, 1.0]))
    rollout = bandit(agent, torch.tensor([0.0, 0.0]), cont=0.0)
    other = Rollout(**vars(rollout))
    other.reward = rollout.reward.clone()
    other.reward[:, 1:] = 1e3  # unreachable
    twin = ActorCritic(AgentConfig(), DIMS, torch.device("cpu"), seed=1)
    twin.load_state_dict(agent.state_dict())
    twin.generator.set_state(agent.generator.get_state())  # the same minibatches
    agent.update(rollout)
    twin.update(other)
    for mine, theirs in zip(agent.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_kl_stop_keeps_the_policy():
    torch.manual_seed(0)
    loose = ActorCritic(AgentConfig(epochs=30), DIMS, torch.device("cpu"), seed=1)
    strict = ActorCritic(AgentConfig(epochs=30, kl_stop=1e-4), DIMS, torch.device("cpu"), seed=1)
    strict.load_state_dict(loose.state_dict())
    rollout = bandit(loose, torch.tensor([0.9, 0.9]))
    obs = torch.randn(50, 2, 4)
    start = loose.mode(obs)
    loose.update(rollout)
    strict.update(rollout)
    assert 0 < (strict.mode(obs) - start).abs().mean() < 0.5 * (loose.mode(obs) - start).abs().mean()


def test_continues_bit_for_bit():
    torch.manual_seed(0)
    agent = ActorCritic(AgentConfig(), DIMS, torch.device("cpu"), seed=1)
    rollout = bandit(agent, torch.tensor([0.4, 0.1]))
    agent.update(rollout)
    twin = ActorCritic(AgentConfig(), DIMS, torch.device("cpu"), seed=2)
    twin.load_state_dict(agent.state_dict())
    twin.generator.set_state(agent.generator.get_state())  # the same minibatches
    twin.load_optim_state(copy.deepcopy(agent.optim_state()))
    for each in (agent, twin):
        each.update(rollout)
    obs = torch.randn(3, 2, 4)
    assert torch.equal(agent.act(obs)[0], twin.act(obs)[0])
