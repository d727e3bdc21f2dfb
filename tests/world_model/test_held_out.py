"""Held-out error: factors by least squares, whole errors, and only rows that count."""

import pytest
import torch

from dima_isaac.world_model.held_out import DECAY, ROWS, HeldOut

ALL = torch.ones(2)


def yes(rows: int) -> torch.Tensor:
    return torch.ones(rows, dtype=torch.bool)


def test_before_any_evidence_predictions_stay_and_errors_are_zero():
    held_out, y = HeldOut(ALL), torch.randn(5, 2)
    assert torch.equal(held_out.shrink(y), y)
    assert held_out.draw(5, torch.Generator().manual_seed(0)).eq(0).all()


def test_factors_are_least_squares_within_bounds():
    torch.manual_seed(0)
    guess = torch.randn(4_000, 4)
    outcome = torch.stack([guess[:, 0], 0.5 * guess[:, 1], torch.randn(4_000), -guess[:, 3]], 1)
    held_out = HeldOut(torch.ones(4))
    metrics = held_out.update(guess, outcome, yes(4_000), torch.ones(4), torch.ones(4))
    torch.testing.assert_close(held_out.gain, torch.tensor([1.0, 0.5, 0.0, 0.0]), atol=0.05, rtol=0)
    assert metrics["world/shrinkage"].item() == pytest.approx(1.5 / 4, abs=0.05)


def test_an_update_by_hand():
    held_out = HeldOut(ALL)
    held_out.gain.copy_(torch.tensor([0.5, 1.0]))
    guess = torch.tensor([[2.0, 1.0], [4.0, 1.0], [9.0, 9.0]])
    outcome = torch.tensor([[1.0, 3.0], [4.0, 0.0], [7.0, 7.0]])
    counted, uncertain, denoised = torch.tensor([True, True, False]), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])
    metrics = held_out.update(guess, outcome, counted, uncertain, denoised)
    # errors with the factors until now: [1 - 1, 3 - 1], [4 - 2, 0 - 1]
    assert held_out.errors[-3:].tolist() == [[0.0, 2.0], [2.0, -1.0], [0.0, 0.0]]
    assert metrics["world/explained"].item() == pytest.approx(1.0 - 4.0 / 17.0)  # of the first dimension
    assert held_out.gain.tolist() == pytest.approx([(2.0 + 16.0) / (4.0 + 16.0), 1.0])  # (3 + 0) / 2 is above 1
    assert metrics["world/shrinkage"].item() == pytest.approx(0.9)


def test_dimensions_without_uncertainty_get_no_errors():
    held_out = HeldOut(ALL)
    held_out.update(torch.zeros(3, 2), torch.ones(3, 2), yes(3), torch.tensor([1.0, 0.0]), ALL)
    assert held_out.errors[-3:].tolist() == [[1.0, 0.0]] * 3


def test_old_evidence_decays_and_uncounted_rows_are_ignored():
    held_out, one = HeldOut(torch.ones(1)), torch.ones(1)
    ones, zeros = torch.ones(2, 1), torch.zeros(2, 1)
    held_out.update(ones, ones, torch.tensor([True, False]), one, one)
    assert held_out.gain == 1.0
    held_out.update(ones, zeros, yes(2), one, one)
    torch.testing.assert_close(held_out.gain, torch.tensor([DECAY / (DECAY + 2.0)]))
    held_out.update(ones, ones, ~yes(2), one, one)
    torch.testing.assert_close(held_out.gain, torch.tensor([DECAY / (DECAY + 2.0)]))


def test_the_newest_errors_are_drawn_whole_and_scaled():
    held_out, rng = HeldOut(torch.tensor([1.0, 0.5])), torch.Generator().manual_seed(0)
    pairs = torch.stack([torch.arange(1.0, ROWS + 1.0), -torch.arange(1.0, ROWS + 1.0)], 1)
    held_out.update(torch.zeros(20, 2), torch.full((20, 2), 7.0), yes(20), ALL, ALL)
    held_out.update(torch.zeros(ROWS, 2), pairs, yes(ROWS), ALL, ALL)  # more than it holds: the newest stay
    drawn = held_out.draw(500, rng)
    assert torch.equal(drawn[:, 1], -0.5 * drawn[:, 0])
    assert len(drawn[:, 0].unique()) > 400 and drawn[:, 0].min() >= 1.0
