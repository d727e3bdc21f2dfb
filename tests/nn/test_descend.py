"""A bad gradient must leave no trace."""

import pytest
import torch

from dima_isaac.nn.descend import descend


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_gradients_change_nothing(make, bad):
    w = torch.nn.Parameter(torch.ones(4))
    optim = make([w], lr=0.1, fused=True)
    descend(optim, [w], (w**2).sum(), clip=1.0)
    before, moments = w.detach().clone(), optim.state[w]["exp_avg"].clone()
    descend(optim, [w], (w * bad).sum(), clip=1.0)
    descend(optim, [w], (w**2).sum(), clip=1.0, keep=torch.tensor(False))
    assert torch.equal(w, before) and torch.equal(optim.state[w]["exp_avg"], moments) and optim.state[w]["step"] == 1
    norm = descend(optim, [w], (w**2).sum(), clip=1.0)
    assert not torch.equal(w, before)
    torch.testing.assert_close(norm, (2 * before).norm())


def test_an_infinite_loss_with_a_finite_gradient_changes_nothing():
    w = torch.nn.Parameter(torch.ones(1))
    optim = torch.optim.Adam([w], lr=0.1, fused=True)
    loss = torch.nn.functional.huber_loss(w, torch.tensor([float("inf")]))
    assert torch.isfinite(torch.autograd.grad(loss, w, retain_graph=True)[0]).all()
    descend(optim, [w], loss, clip=1.0)
    assert w.item() == 1.0
