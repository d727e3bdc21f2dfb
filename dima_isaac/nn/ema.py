"""An exponential moving average (EMA) of a network's weights."""

import torch
from torch import nn


@torch.no_grad()
def ema_update(average: nn.Module, net: nn.Module, decay: float, updates: int) -> None:
    """Move ``average`` towards ``net`` after its update number ``updates``.

    The decay is (1 + n) / (10 + n) until that exceeds ``decay``, so that early weights are soon forgotten.
    """
    step = 1.0 - min(decay, (1.0 + updates) / (10.0 + updates))
    torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), step)
