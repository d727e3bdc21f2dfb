"""Slow noise for whole episodes: its spread, its correlation, and which episodes get it."""

import torch

from dima_isaac.agent.config import ExploreConfig
from dima_isaac.agent.explore import CORRELATION, Explorer
from dima_isaac.types import Dims

DIMS = Dims(agents=2, state=3, obs=3, action=4)


def explorer(envs: int = 400, seed: int = 0, **settings) -> Explorer:
    return Explorer(ExploreConfig(**settings), DIMS, envs, torch.device("cpu"), seed)


def firsts(envs: int, yes: bool) -> torch.Tensor:
    return torch.full((envs,), yes)


def test_without_a_share_actions_pass_untouched():
    action = torch.randn(400, 2, 4)
    assert explorer(share=0.0)(action, firsts(400, True)) is action


def test_a_share_of_episodes_explores_from_start_to_end():
    noisy, action = explorer(share=0.25), torch.randn(400, 2, 4)
    seen = [(noisy(action, firsts(400, t == 0)) != action).flatten(1).any(1) for t in range(5)]
    assert 60 < seen[0].sum() < 140 and all(torch.equal(seen[0], other) for other in seen[1:])
    again = torch.arange(400) < 200
    after = (noisy(action, again) != action).flatten(1).any(1)
    assert torch.equal(after[200:], seen[0][200:]) and not torch.equal(after[:200], seen[0][:200])


def test_noise_keeps_its_spread_and_is_correlated_in_time():
    noisy, still = explorer(share=1.0), torch.zeros(400, 2, 4)
    path = torch.stack([noisy(still, firsts(400, t == 0)) for t in range(60)])
    assert torch.allclose(path.std((1, 2, 3)), torch.tensor(1.0), atol=0.06), "from the first step on"
    for lag in (1, 5):
        correlation = (path[lag:] * path[:-lag]).mean() / path.square().mean()
        assert abs(correlation - CORRELATION**lag) < 0.03


def test_a_new_episode_starts_with_noise_of_its_own():
    noisy, still = explorer(share=1.0), torch.zeros(400, 2, 4)
    path = [noisy(still, firsts(400, t != 1)) for t in range(3)]
    assert (path[0] * path[1]).mean() > 0.8 and abs((path[1] * path[2]).mean()) < 0.1


def test_it_continues_bit_for_bit():
    one, other = explorer(share=0.5), explorer(share=0.5, seed=9)
    still = torch.zeros(400, 2, 4)
    one(still, firsts(400, True))
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    later = torch.arange(400) % 3 == 0
    assert torch.equal(one(still, later), other(still, later))
