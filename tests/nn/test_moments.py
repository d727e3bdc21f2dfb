"""Running moments are the moments of everything seen."""

import numpy as np
import torch

from dima_isaac.nn.moments import Moments


def test_batches_merge_to_the_moments_of_their_concatenation():
    rng = np.random.default_rng(0)
    parts = [rng.normal(5.0, 3.0, (n, 4)) * [1.0, 10.0, 1e-3, 0.0] + [0.0, 1e4, 1.0, 7.0] for n in (3, 50, 1, 400)]
    moments = Moments(4)
    for part in parts:
        moments.update(torch.from_numpy(part))
    everything = np.concatenate(parts)
    np.testing.assert_allclose(moments.mean.numpy(), everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.var.numpy(), everything.var(0), rtol=1e-9, atol=1e-20)
    assert moments.count.item() == 454


def test_weight_zero_rows_count_for_nothing():
    rows = torch.tensor([[1.0], [100.0], [3.0]])
    moments = Moments(1)
    moments.update(rows, torch.tensor([1.0, 0.0, 1.0]))
    assert moments.mean.item() == 2.0 and moments.var.item() == 1.0


def test_an_empty_batch_changes_nothing():
    moments = Moments(1)
    moments.update(torch.tensor([[5.0]]), torch.zeros(1))
    assert (moments.count.item(), moments.mean.item(), moments.var.item()) == (0.0, 0.0, 1.0)


def test_the_prior_is_a_standard_normal_of_little_weight():
    moments = Moments(2, prior=1e-4)
    assert moments.var.tolist() == [1.0, 1.0]
    moments.update(torch.full((100, 2), 3.0))
    assert abs(moments.mean[0].item() - 3.0) < 1e-5 and moments.var[0].item() < 2e-5
