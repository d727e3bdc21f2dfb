"""Weights of the denoiser's loss, against numbers worked out by hand."""

import torch

from dima_isaac.world_model.loss_weights import LossWeights


def test_without_value_or_evidence_all_denoised_dimensions_have_equal_weight():
    weights = LossWeights(4, value_weight=0.0)
    weights.update(torch.tensor([9.0, 0.0, 1.0, 0.0]))
    torch.testing.assert_close(
        weights(torch.tensor([1.0, 1.0, 0.0, 1.0]), None), torch.tensor([4.0, 4.0, 0.0, 4.0]) / 3
    )


def test_what_cannot_be_predicted_yet_keeps_a_tenth_of_its_weight():
    weight = LossWeights(4, value_weight=0.0)(torch.ones(4), torch.tensor([1.0, 0.0, 0.5, 1.0]))
    torch.testing.assert_close(weight / weight[0], torch.tensor([1.0, 0.1, 0.55, 1.0]))
    torch.testing.assert_close(weight.mean(), torch.tensor(1.0))


def test_a_share_follows_the_squared_gradient():
    weights, gradient = LossWeights(3, value_weight=0.5), torch.tensor([0.0, 2.0, 4.0])
    for _ in range(200):
        weights.update(gradient)
    torch.testing.assert_close(weights.value, gradient / 2.0, atol=1e-4, rtol=1e-4)
    expected = torch.tensor([0.5, 1.0, 1.5])  # half constant, half gradient over its mean
    torch.testing.assert_close(weights(torch.ones(3), None), expected, atol=1e-4, rtol=1e-4)
    assert expected[0] > 0, "what has no value today still counts"
