"""Believe what came true, and nothing else."""

import torch

from dima_isaac.nn.trust import Trust


def test_gain_is_the_least_squares_factor_within_bounds():
    torch.manual_seed(0)
    guess = torch.randn(4_000, 4)
    truth = torch.stack([guess[:, 0], 0.5 * guess[:, 1], torch.randn(4_000), -guess[:, 3]], 1)
    trust = Trust(4, decay=0.9)
    assert trust.gain.eq(1).all()
    trust.update(guess, truth, torch.ones(4_000, dtype=torch.bool))
    torch.testing.assert_close(trust.gain, torch.tensor([1.0, 0.5, 0.0, 0.0]), atol=0.05, rtol=0)


def test_rows_that_do_not_count_teach_nothing_and_old_evidence_fades():
    trust = Trust(1, decay=0.5)
    ones, zeros = torch.ones(2, 1), torch.zeros(2, 1)
    trust.update(ones, ones, torch.tensor([True, False]))
    assert trust.gain == 1.0
    trust.update(ones, zeros, torch.tensor([True, True]))
    torch.testing.assert_close(trust.gain, torch.tensor([0.5 / 2.5]))
    trust.update(ones, ones, torch.tensor([False, False]))
    torch.testing.assert_close(trust.gain, torch.tensor([0.25 / 1.25]))
