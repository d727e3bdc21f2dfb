"""Lambda-returns against numbers worked out by hand, and survival weights."""

import pytest
import torch

from dima_isaac.agent.returns import ReturnScale, lambda_returns, survival

REWARD = torch.tensor([[1.0, 2.0, 3.0]])
NEXT_VALUE = torch.tensor([[10.0, 11.0, 12.0]])
CONT = torch.tensor([[1.0, 0.9, 1.0]])


def test_lambda_returns_published_and_corrected():
    right = lambda_returns(REWARD, NEXT_VALUE, CONT, 0.99, 0.95)
    torch.testing.assert_close(right, torch.tensor([[15.6827, 15.0852, 14.8800]]), atol=1e-4, rtol=0)
    upstream = lambda_returns(REWARD, NEXT_VALUE, CONT, 0.99, 0.95, gamma_twice=True)
    torch.testing.assert_close(upstream, torch.tensor([[15.6684, 15.0753, 14.8741]]), atol=1e-4, rtol=0)


def test_certain_termination_cuts_the_return():
    cont = torch.tensor([[1.0, 0.0, 1.0]])
    out = lambda_returns(REWARD, NEXT_VALUE, cont, 0.99, 0.95)
    assert out[0, 1] == 2.0
    torch.testing.assert_close(out[0, 0], torch.tensor(1 + 0.99 * (0.05 * 10 + 0.95 * 2)))


def test_lambda_one_is_the_discounted_sum():
    ones = torch.ones(1, 3)
    out = lambda_returns(REWARD, NEXT_VALUE, ones, 0.5, 1.0)
    torch.testing.assert_close(out[0, 0], torch.tensor(1 + 0.5 * 2 + 0.25 * 3 + 0.125 * 12))


def test_survival_is_the_chance_to_get_there():
    torch.testing.assert_close(survival(torch.tensor([[0.5, 0.4, 0.0]])), torch.tensor([[1.0, 0.5, 0.2]]))


def test_scale_of_returns_by_hand():
    scale = ReturnScale(gamma=0.5, limit=10.0)
    no = torch.zeros(2, dtype=torch.bool)
    scale.update(torch.tensor([1.0, -1.0]), no)  # returns 1, -1
    scale.update(torch.tensor([1.0, 0.0]), torch.tensor([False, True]))  # 1.5, and 0 in a new episode
    assert scale.running.tolist() == [1.5, 0.0]
    deviation = torch.tensor([1.0, -1.0, 1.5, 0.0]).std(correction=0)
    torch.testing.assert_close(scale(), deviation)
    scale.update(torch.tensor([999.25, 0.0]), no)  # 1000: a tenth of it fits into +-10
    assert scale().item() == pytest.approx(
        max(100.0, float(torch.tensor([1.0, -1.0, 1.5, 0.0, 1000.0, 0.0]).std(correction=0))), rel=1e-5
    )
