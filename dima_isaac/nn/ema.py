"""An exponential moving average (EMA) of a network's weights."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def ema_update(average: nn.Module, net: nn.Module, step: float) -> None:
    """Move the weights of ``average`` by ``step``, a share, towards those of ``net``."""
    averaged: list[Tensor] = list(average.parameters())
    torch._foreach_lerp_(averaged, list[Tensor](net.parameters()), step)


def ema_step(decay: float, updates: int) -> float:
    """The step after update number ``updates`` of a network: 1 - ``decay`` in the end.

    The decay is (1 + n) / (10 + n) after n updates until that exceeds ``decay``: early weights are soon forgotten.
    """
    return 1.0 - min(decay, (1.0 + updates) / (10.0 + updates))
