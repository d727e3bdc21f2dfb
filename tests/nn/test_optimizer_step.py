"""A bad gradient must leave no trace."""

import pytest
import torch

from dima_isaac.nn.optim import optimizer_step, shrink_columns


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_gradients_change_nothing(make, bad):
    w = torch.nn.Parameter(torch.ones(4))
    optim = make([w], lr=0.1, fused=True)
    optimizer_step(optim, [w], (w**2).sum(), clip=1.0)
    before, moments = w.detach().clone(), optim.state[w]["exp_avg"].clone()
    optimizer_step(optim, [w], (w * bad).sum(), clip=1.0)
    assert torch.equal(w, before) and torch.equal(optim.state[w]["exp_avg"], moments) and optim.state[w]["step"] == 1
    norm = optimizer_step(optim, [w], (w**2).sum(), clip=1.0)
    assert not torch.equal(w, before)
    torch.testing.assert_close(norm, (2 * before).norm())


def test_an_infinite_loss_with_a_finite_gradient_changes_nothing():
    w = torch.nn.Parameter(torch.ones(1))
    optim = torch.optim.Adam([w], lr=0.1, fused=True)
    loss = torch.nn.functional.huber_loss(w, torch.tensor([float("inf")]))
    assert torch.isfinite(torch.autograd.grad(loss, w, retain_graph=True)[0]).all()
    optimizer_step(optim, [w], loss, clip=1.0)
    assert w.item() == 1.0


def test_columns_are_shortened_by_a_length_and_short_ones_are_gone():
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.3, 0.0], [4.0, -0.4, 0.0]]))
    bias = layer.bias.detach().clone()
    shrink_columns(layer, torch.tensor(1.0))
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[2.4, 0.0, 0.0], [3.2, 0.0, 0.0]]))
    assert torch.equal(layer.bias, bias)


@pytest.mark.parametrize("bad", [1.0, float("nan")])
def test_columns_are_shortened_after_a_step_that_is_made(bad):
    layer = torch.nn.Linear(4, 3)
    before = layer.weight.detach().clone()
    optim = torch.optim.SGD(layer.parameters(), lr=0.1)
    optim.step = lambda: None  # what is left is the shortening
    optimizer_step(optim, list(layer.parameters()), layer(torch.ones(4)).sum() * bad, clip=1.0, sparse=(layer, 2.0))
    shortened = before.norm(dim=0) - layer.weight.detach().norm(dim=0)
    torch.testing.assert_close(shortened, torch.full((4,), 0.2 if bad == 1.0 else 0.0))
