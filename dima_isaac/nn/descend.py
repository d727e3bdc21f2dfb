"""One optimiser step that cannot poison the weights: a non-finite loss or gradient changes nothing."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def descend(optim: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], loss: Tensor, clip: float,
            keep: Tensor | None = None) -> Tensor:  # fmt: skip
    """Backpropagate, clip the gradient's norm to ``clip`` and step; returns the norm before clipping, detached.

    The step is skipped, bit for bit, where the norm or the loss (0-dim) is not finite or ``keep`` (0-dim bool) is
    False; under Huber's loss an infinite miss has a finite gradient. The decision stays on the device: fused
    optimisers take it as ``found_inf``, as mixed-precision scalers do.
    """
    optim.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(parameters, clip, foreach=True)
    skip = ~torch.isfinite(norm + loss.detach())
    if keep is not None:
        skip = skip | ~keep
    # a GPU's graph takes steps only of optimisers that say so, and they complain where there is none
    capturing = loss.is_cuda and torch.cuda.is_current_stream_capturing()
    for group in optim.param_groups:
        group["capturable"] = capturing
    optim.found_inf = skip.float()  # type: ignore[attr-defined]
    optim.step()
    return norm.detach()
