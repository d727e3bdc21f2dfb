"""Codebooks, with numbers worked out by hand."""

import torch

from dima_isaac.world_model.paper.quantise import FiniteScalarQuantiser, VectorQuantiser


def codebook(decay: float) -> VectorQuantiser:
    quantiser = VectorQuantiser(2, 1, decay, smoothing=0.0)
    start = torch.tensor([[0.0], [10.0]])
    quantiser.codebook.copy_(start)
    quantiser.total.copy_(start)
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


def test_the_first_batch_gives_every_code_a_token():
    quantiser = VectorQuantiser(4, 1, 0.9, revive=0.5)
    tokens = torch.arange(8.0).unsqueeze(1)
    _, _, used = quantiser(tokens)
    assert used.item() == 1.0 and quantiser.codebook.min() > -0.1  # four different tokens, spread over the batch
    assert quantiser.codebook.max() - quantiser.codebook.min() > 4.0


def test_a_code_that_nothing_finds_becomes_a_token_and_the_others_stay():
    never, revived = codebook(0.5), codebook(0.5)
    revived.revive = 0.2
    batch = torch.tensor([[1.0], [-1.0], [0.5], [-0.5]])
    for _ in range(3):
        never(batch)
        revived(batch)
    assert torch.equal(never.codebook, revived.codebook) and revived.size[1] == 0.125  # of one token, halved thrice
    revived(batch)
    assert revived.codebook[1].abs() < 1.1 and abs(revived.codebook[0]) < 0.6
    never(batch)
    assert never.codebook[1] > 5.0


def test_dreams_revive_nothing():
    quantiser = VectorQuantiser(4, 1, 0.9, revive=0.5)
    before = quantiser.codebook.clone()
    with torch.no_grad():
        quantiser(torch.randn(9, 1))
    quantiser.eval()(torch.randn(9, 1))
    assert torch.equal(quantiser.codebook, before)


def test_finite_scalars_have_240_codes_and_reach_all_of_them():
    quantiser = FiniteScalarQuantiser([8, 6, 5])
    assert quantiser.codes == 240
    side = torch.linspace(-6.0, 6.0, 60)
    tokens = torch.cartesian_prod(side, side, side)
    chosen, commitment, used = quantiser(tokens)
    index = quantiser.index(chosen)
    assert index.min() == 0 and index.max() == 239 and len(index.unique()) == 240
    assert used.item() == 1.0 and commitment.item() == 0.0
    assert [len(chosen[:, i].unique()) for i in range(3)] == [8, 6, 5]
    assert chosen.min() >= -1.0 and chosen.max() <= 1.0


def test_finite_scalars_pass_gradients_through_the_rounding():
    tokens = torch.zeros(1, 3, requires_grad=True)
    FiniteScalarQuantiser([8, 6, 5])(tokens)[0].sum().backward()
    assert (tokens.grad > 0.5).all()
