"""Optimiser steps with rates and groups worked out by hand. Adam's first step has length lr, whatever the gradient."""

import pytest
import torch
from torch import nn

from dima_isaac.nn.optim import Optimiser


def optimizer_step(twice: bool = False, steps: int = 1, **settings) -> list[float]:
    weight = nn.Linear(1, 1)
    with torch.no_grad():
        weight.weight.fill_(1.0)
        weight.bias.fill_(1.0)
    default = {"lr": 0.1, "weight_decay": 0.0, "decay_all": False, "warmup": 0, "clip": 100.0}
    optimiser = Optimiser(weight, **{**default, **settings})
    for _ in range(steps):
        optimiser.begin()
        optimiser.step(3.0 * weight.weight.sum() + 4.0 * weight.bias.sum(), twice)
    return [weight.weight.item(), weight.bias.item()]


def test_one_step_and_the_double_step():
    assert optimizer_step() == pytest.approx([0.9, 0.9])
    assert optimizer_step(twice=True) == pytest.approx([0.8, 0.8])
    # the same gradient, clipped, in both: a step of Adam does not depend on its scale
    assert optimizer_step(twice=True, clip=1.0) == pytest.approx([0.8, 0.8])


def test_biases_are_decayed_only_with_decay_all():
    assert optimizer_step(weight_decay=0.5) == pytest.approx([0.95 - 0.1, 1.0 - 0.1])
    assert optimizer_step(weight_decay=0.5, decay_all=True) == pytest.approx([0.85, 0.85])


def test_warm_up_begins_at_rate_zero():
    assert optimizer_step(warmup=2) == [1.0, 1.0]
    assert optimizer_step(warmup=2, steps=2)[0] == pytest.approx(0.95)
    assert optimizer_step(warmup=2, steps=3)[0] == pytest.approx(0.85)


def test_the_norm_is_that_before_clipping():
    weight = nn.Linear(1, 1)
    optimiser = Optimiser(weight, 0.1, 0.0, 1.0)
    assert optimiser.step(3.0 * weight.weight.sum() + 4.0 * weight.bias.sum()).item() == pytest.approx(5.0)


def test_a_warm_up_goes_on_after_loading():
    def fresh() -> tuple[nn.Linear, Optimiser]:
        torch.manual_seed(0)
        net = nn.Linear(1, 1)
        return net, Optimiser(net, 0.1, 0.0, 100.0, warmup=4)

    (one, whole), (_, before) = fresh(), fresh()
    for _ in range(3):
        whole.begin()
        whole.step(one(torch.ones(1, 1)).sum())
    other, after = fresh()
    other.load_state_dict(one.state_dict())
    after.load_state_dict(whole.state_dict())
    for net, optimiser in ((one, whole), (other, after)):
        optimiser.begin()
        optimiser.step(net(torch.ones(1, 1)).sum())
    assert torch.equal(one.weight, other.weight) and after.updates == 4
    before.load_state_dict({**whole.state_dict(), "updates": 0})
    before.begin()
    assert whole.state_dict()["adam"]["param_groups"][0]["lr"] > 0.0, "loading shares no rate"
