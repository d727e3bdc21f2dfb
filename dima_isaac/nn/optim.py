"""Optimiser steps: AdamW with warm-up and clipping; a loss or gradient that is not finite changes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Optimiser:
    """AdamW on the parameters of ``module``.

    Weight decay acts on the weights of linear and convolution layers only, or on everything with ``decay_all``.
    With ``warmup`` w the rate of update k is lr * min(k / w, 1), so update 0 moves nothing.
    """

    def __init__(
        self, module: nn.Module, lr: float, weight_decay: float, clip: float, warmup: int = 0, decay_all: bool = False
    ) -> None:
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        heavy = {
            id(layer.weight)
            for layer in module.modules()
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.ConvTranspose1d)
        }
        decayed = [p for p in self._parameters if decay_all or id(p) in heavy]
        spared = [p for p in self._parameters if not decay_all and id(p) not in heavy]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
        self._adam = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, fused=True)
        # a rate that changes lives on the device, where a captured step finds its newest value
        self._rate = torch.full((), lr, device=self._parameters[0].device) if warmup else None
        self._lr, self._warmup, self._clip, self.updates = lr, warmup, clip, 0
        self._place_rate()

    def begin(self) -> None:
        """Count an update and set its rate: the host's part, before ``step``, which may be captured."""
        if self._rate is not None:
            self._rate.fill_(self._lr * min(self.updates / self._warmup, 1.0))
        self.updates += 1

    def step(self, loss: Tensor, twice: bool = False) -> Tensor:
        """Descend ``loss``; returns the gradient's norm before clipping. ``twice`` steps unclipped as well, first."""
        norm = optimizer_step(self._adam, self._parameters, loss, math.inf if twice else self._clip)
        if twice:
            nn.utils.clip_grad_norm_(self._parameters, self._clip)
            self._adam.step()
        return norm

    def state_dict(self) -> dict:
        return {"adam": self._adam.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        """Continue from ``state_dict``."""
        self._adam.load_state_dict(state["adam"])
        self._place_rate()
        self.updates = int(state["updates"])

    def _place_rate(self) -> None:
        """Not left to AdamW, which would read the number, nor to a checkpoint, which brings a tensor of its own."""
        if self._rate is not None:
            for group in self._adam.param_groups:
                group["lr"] = self._rate


def optimizer_step(
    optim: torch.optim.Optimizer,
    parameters: Iterable[nn.Parameter],
    loss: Tensor,
    clip: float,
) -> Tensor:
    """Backpropagate, clip the gradient's norm to ``clip`` and step; returns the norm before clipping, detached.

    The step is skipped, bit for bit, where the norm or the loss (0-dim) is not finite: under Huber's loss an infinite
    miss has a finite gradient. The decision stays on the device: fused
    optimisers take it as ``found_inf``, as mixed-precision scalers do.
    """
    optim.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(parameters, clip, foreach=True)
    skip = ~torch.isfinite(norm + loss.detach())
    # a GPU's graph takes steps only of optimisers that say so, and they complain where there is none
    capturing = loss.is_cuda and torch.cuda.is_current_stream_capturing()
    for group in optim.param_groups:
        group["capturable"] = capturing
    optim.found_inf = skip.float()  # type: ignore[attr-defined]
    optim.step()
    return norm.detach()
