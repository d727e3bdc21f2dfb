"""A bad gradient must leave no trace."""

import pytest
import torch

from dima_isaac.nn.optim import optimizer_step


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
