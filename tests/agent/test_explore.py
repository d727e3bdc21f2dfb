"""Slow noise for whole episodes: its spread, its correlation, and each episode's deviation."""

import torch

from dima_isaac.agent.config import ExploreConfig
from dima_isaac.agent.explore import CORRELATION, Explorer
from dima_isaac.run.renamed import renamed_state
from dima_isaac.types import Dims

DIMS = Dims(agents=2, state=3, obs=3, action=4)


def explorer(envs: int = 400, seed: int = 0, **settings) -> Explorer:
    return Explorer(ExploreConfig(**settings), DIMS, envs, torch.device("cpu"), seed)


def firsts(envs: int, yes: bool) -> torch.Tensor:
    return torch.full((envs,), yes)


def test_without_a_deviation_actions_pass_untouched():
    action = torch.randn(400, 2, 4)
    assert explorer(max_std=0.0)(action, firsts(400, True)) is action


def test_an_episode_keeps_its_deviation_and_deviations_are_uniform():
    noisy, still = explorer(max_std=0.5), torch.zeros(400, 2, 4)
    path = torch.stack([noisy(still, firsts(400, t == 0)) for t in range(400)])
    std = path.flatten(2).std((0, 2))
    assert torch.allclose(std.sort().values, torch.linspace(0.0, 0.5, 400), atol=0.06), "from 0 to max_std, evenly"
    halves = [half.flatten(2).std((0, 2)) for half in path.chunk(2)]
    assert torch.stack([*halves, std]).corrcoef()[0, 1] > 0.9, "from start to end"


def test_noise_keeps_its_spread_and_is_correlated_in_time():
    noisy, still = explorer(max_std=1.0), torch.zeros(400, 2, 4)
    path = torch.stack([noisy(still, firsts(400, t == 0)) for t in range(60)])
    spread = path.square().mean((1, 2, 3)).sqrt()
    assert torch.allclose(spread, torch.tensor(3.0**-0.5), atol=0.06), "from the first step on"
    for lag in (1, 5):
        correlation = (path[lag:] * path[:-lag]).mean() / path.square().mean()
        assert abs(correlation - CORRELATION**lag) < 0.03


def test_a_new_episode_starts_with_noise_of_its_own():
    noisy, still = explorer(max_std=1.0), torch.zeros(400, 2, 4)
    path = [noisy(still, firsts(400, t != 1)) for t in range(3)]
    assert (path[0] * path[1]).mean() > 0.25 and abs((path[1] * path[2]).mean()) < 0.05
    deviations = [step.flatten(1).abs().mean(1) for step in path]
    assert abs(torch.stack(deviations[1:]).corrcoef()[0, 1]) < 0.2, "nor does it have the deviation of the last one"


def test_it_continues_bit_for_bit():
    one, other = explorer(max_std=0.5), explorer(max_std=0.5, seed=9)
    still = torch.zeros(400, 2, 4)
    one(still, firsts(400, True))
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    later = torch.arange(400) % 3 == 0
    assert torch.equal(one(still, later), other(still, later))


def test_a_run_of_before_ends_its_episodes_with_the_deviation_that_they_had():
    noisy = explorer(max_std=0.5)
    active = torch.arange(400) % 2 == 0  # until then an episode had deviation 1 or none
    stored = {"noise": torch.ones(400, 2, 4), "active": active, "generator": noisy.state_dict()["generator"]}
    noisy.load_state_dict(renamed_state({"explorer": stored})["explorer"])
    still = torch.zeros(400, 2, 4)
    moved = noisy(still, firsts(400, False)).flatten(1)
    assert not moved[~active].any() and abs(moved[active].std() - (1.0 - CORRELATION**2) ** 0.5) < 0.03
    assert noisy(still, firsts(400, True)).flatten(1).any(1).all()
