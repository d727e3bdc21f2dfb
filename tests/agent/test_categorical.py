"""Categorical critics: the projection of a target distribution by hand, and the choice of the smaller critic."""

import pytest
import torch

from dima_isaac.agent.categorical import ATOMS, LIMIT, CategoricalCritics
from dima_isaac.types import Dims

STEP = 2.0 * LIMIT / (ATOMS - 1)  # between two atoms


@pytest.fixture
def critics() -> CategoricalCritics:
    torch.manual_seed(0)
    return CategoricalCritics(Dims(agents=2, state=3, obs=3, action=1), [8])


def certain(*values: float) -> torch.Tensor:
    """Logits (B, ATOMS) of distributions that are one atom each."""
    logits = torch.full((len(values), ATOMS), -1e4)
    logits[torch.arange(len(values)), [round((value + LIMIT) / STEP) for value in values]] = 0.0
    return logits


def test_a_target_between_two_atoms_is_shared_and_keeps_its_mean(critics):
    logits = certain(1.0, 4.0).expand(2, -1, -1)
    reward, discount = torch.tensor([0.05, -0.5]), torch.tensor([0.9, 0.0])
    target = critics.target(logits, reward, discount)
    torch.testing.assert_close((target * critics.atoms).sum(1), torch.tensor([0.95, -0.5]), rtol=0, atol=1e-5)
    torch.testing.assert_close(target.sum(1), torch.ones(2))
    below = round((0.8 + LIMIT) / STEP)
    torch.testing.assert_close(target[0, below : below + 2], torch.tensor([0.25, 0.75]), rtol=0, atol=1e-4)


def test_values_beyond_the_last_atom_count_as_the_last_atom(critics):
    target = critics.target(certain(LIMIT).expand(2, -1, -1), torch.tensor([5.0]), torch.tensor([1.0]))
    assert target[0, -1] == pytest.approx(1.0) and target[0, :-1].abs().max() < 1e-6


def test_the_critic_with_the_smaller_mean_gives_the_target(critics):
    logits = torch.stack([certain(3.0, -2.0), certain(1.0, 6.0)])
    target = critics.target(logits, torch.zeros(2), torch.ones(2))
    torch.testing.assert_close((target * critics.atoms).sum(1), torch.tensor([1.0, -2.0]), rtol=0, atol=1e-4)


def test_the_two_critics_differ_and_begin_near_zero(critics):
    critics.eval()
    one, other = critics.mean(critics(torch.randn(5, 3), torch.randn(5, 2, 1)))
    assert not torch.equal(one, other) and max(one.abs().max(), other.abs().max()) < 1.0
