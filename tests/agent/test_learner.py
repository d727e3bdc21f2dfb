"""What every learner that ``agent.learner`` can name keeps to."""

import copy

import pytest
import torch

from dima_isaac.agent.config import AgentConfig, LearnerKind
from dima_isaac.agent.learner import Learner, build_learner
from dima_isaac.agent.sac import SAC
from dima_isaac.types import Dims, Rollout, Step, Transitions
from tests.agent.games import game

GAME = game(Dims(agents=3, state=5, obs=4, action=2))


def learner(kind: LearnerKind, **more) -> Learner:
    torch.manual_seed(0)
    return build_learner(AgentConfig(learner=kind), GAME, torch.device("cpu"), seed=1, **more)


def row(envs: int) -> Step:
    """One of every environment."""
    state, no = torch.randn(envs, 5), torch.zeros(envs, dtype=torch.bool)
    return Step(state, GAME.observe(state), torch.randn(envs), no, no, no)


def experience(one: Learner) -> Rollout | Transitions:
    """What ``one`` learns from."""
    if isinstance(one, SAC):
        return Transitions(torch.randn(8, 5), torch.randn(8, 3, 2).tanh(), torch.randn(8), torch.full((8,), 0.9),
                           torch.randn(8, 5), torch.ones(8, dtype=torch.bool))  # fmt: skip
    obs, state, last = torch.randn(8, 4, 3, 4), torch.randn(8, 5, 5), torch.randn(8, 5, 3, 2)
    action, logp = one.act(obs)
    return Rollout(obs, state, state, last, action, logp, torch.randn(8, 4), torch.ones(8, 4))


@pytest.mark.parametrize("kind", LearnerKind)
def test_shapes(kind):
    one, obs = learner(kind), torch.randn(7, 3, 4)
    action, logp = one.act(obs)
    assert action.shape == (7, 3, 2) and logp.shape == (7, 3) and one.mode(obs).shape == (7, 3, 2)
    one.track(row(5))
    assert all(value.dim() == 0 for value in one.update(experience(one)).values())


@pytest.mark.parametrize("kind", LearnerKind)
def test_a_caller_s_generator_leaves_the_learner_s_own_alone(kind):
    one, obs = learner(kind), torch.randn(7, 3, 4)
    before = one.generator.get_state()
    first = one.act(obs, torch.Generator().manual_seed(3))[0]
    assert torch.equal(one.generator.get_state(), before)
    assert torch.equal(one.act(obs, torch.Generator().manual_seed(3))[0], first)
    one.act(obs)
    assert not torch.equal(one.generator.get_state(), before)


@pytest.mark.parametrize("kind", LearnerKind)
@pytest.mark.parametrize("clip", [True, False])
def test_the_mode_is_clipped_where_environments_take_no_more(kind, clip):
    one = learner(kind, clip_actions=clip)
    with torch.no_grad():
        for parameter in one.actor.parameters():
            parameter.add_(3.0)
    most = one.mode(torch.randn(7, 3, 4)).abs().max()
    assert most <= 1.0 if clip else most.isfinite()


@pytest.mark.parametrize("kind", LearnerKind)
def test_two_states_together_continue_bit_for_bit(kind):
    one, other = learner(kind), learner(kind)
    one.track(row(5))
    one.update(experience(one))
    given = experience(one)
    other.load_state_dict(one.state_dict())
    other.load_optim_state(copy.deepcopy(one.optim_state()))
    one.update(given)
    other.update(given)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
