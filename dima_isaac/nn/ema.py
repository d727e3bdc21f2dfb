"""An exponential moving average (EMA) of a network's weights."""

import copy
from typing import TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def ema_copy(net: Net) -> Net:
    """A copy of ``net`` for ``ema_update``; it belongs to no optimiser.

    Its weights keep ``requires_grad``: autocast caches casts to bfloat16 for such weights only.
    """
    return copy.deepcopy(net)


@torch.no_grad()
def ema_update(average: nn.Module, net: nn.Module, decay: float, updates: int) -> None:
    """Move ``average`` towards ``net`` after its update number ``updates``.

    The decay is (1 + n) / (10 + n) until that exceeds ``decay``, so that early weights are soon forgotten.
    """
    step = 1.0 - min(decay, (1.0 + updates) / (10.0 + updates))
    torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), step)
