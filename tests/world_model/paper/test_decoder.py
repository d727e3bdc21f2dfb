"""Codebooks, with numbers worked out by hand."""

import torch

from dima_isaac.world_model.paper.decoder import VectorQuantiser


def codebook(decay: float) -> VectorQuantiser:
    quantiser = VectorQuantiser(2, 1, decay, smoothing=0.0)
    start = torch.tensor([[0.0], [10.0]])
    quantiser.codebook.copy_(start)
    quantiser.total.copy_(start)
    quantiser.size.fill_(1.0)
    return quantiser


def test_tokens_take_the_nearest_code_and_the_commitment_is_their_distance():
    tokens = torch.tensor([[1.0], [2.0], [9.0]], requires_grad=True)
    chosen, commitment, used = codebook(0.9)(tokens)
    assert chosen.flatten().tolist() == [0.0, 0.0, 10.0]
    assert abs(commitment.item() - (1 + 4 + 1) / 3) < 1e-6 and used.item() == 1.0
    chosen.sum().backward()
    assert tokens.grad.flatten().tolist() == [1.0, 1.0, 1.0]  # straight through


def test_the_codebook_follows_by_moving_averages():
    quantiser = codebook(0.9)
    quantiser(torch.tensor([[1.0], [2.0], [9.0]]))
    # sizes .9 * 1 + .1 * [2, 1]; sums .9 * [0, 10] + .1 * [3, 9]
    assert torch.allclose(quantiser.size, torch.tensor([1.1, 1.0]))
    assert torch.allclose(quantiser.codebook.flatten(), torch.tensor([0.3 / 1.1, 9.9 / 1.0]))


def test_laplace_smoothing_moves_every_size_towards_the_mean():
    quantiser = codebook(0.9)
    quantiser.smoothing = 0.5
    quantiser(torch.tensor([[1.0], [2.0], [9.0]]))
    smooth = (torch.tensor([1.1, 1.0]) + 0.5) / (2.1 + 2 * 0.5) * 2.1
    assert torch.allclose(quantiser.codebook.flatten(), torch.tensor([0.3, 9.9]) / smooth)


def test_evaluation_and_dreams_leave_the_codebook_alone():
    quantiser = codebook(0.9)
    before = quantiser.codebook.clone()
    with torch.no_grad():
        quantiser(torch.randn(5, 1))
    quantiser.eval()(torch.randn(5, 1))
    assert torch.equal(quantiser.codebook, before)
