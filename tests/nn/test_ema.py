"""A moving average of weights against numbers worked out by hand."""

import copy

import torch
from torch import nn

from dima_isaac.nn.ema import ema_step, ema_update


def test_average_follows_and_is_never_trained():
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    mean = copy.deepcopy(net)
    net(torch.ones(1)).sum().backward()
    assert mean.weight.grad is None
    nn.init.constant_(net.weight, 2.0)
    ema_update(mean, net, ema_step(decay=0.5, updates=1))  # (1 + 1) / (10 + 1) < 0.5
    torch.testing.assert_close(mean.weight.item(), 1.0 + (1.0 - 2.0 / 11.0))
    ema_update(mean, net, ema_step(decay=0.5, updates=1_000))
    torch.testing.assert_close(mean.weight.item(), 2.0 - 0.5 * (2.0 - (2.0 - 2.0 / 11.0)))
    assert net.weight.item() == 2.0
