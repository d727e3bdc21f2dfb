"""Optimiser steps: AdamW with warm-up and clipping; a loss or gradient that is not finite changes nothing."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dima_isaac import ranks
from dima_isaac.types import restore_generator


class Optimiser:
    """AdamW on the parameters of ``module``.

    Weight decay acts on the weights of linear and convolution layers only, or on everything with ``decay_all``.
    With ``warmup`` w the rate of update k is lr * min(k / w, 1), so update 0 moves nothing. ``sparse`` is a layer of
    ``module`` and the strength of its ``shrink_columns``.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float,
        weight_decay: float,
        clip: float,
        warmup: int = 0,
        decay_all: bool = False,
        sparse: tuple[nn.Linear, float] | None = None,
    ) -> None:
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        layers = (layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv1d | nn.ConvTranspose1d))
        weights = {id(layer.weight) for layer in layers}
        decayed = [p for p in self._parameters if decay_all or id(p) in weights]
        others = [p for p in self._parameters if not decay_all and id(p) not in weights]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._adam = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, fused=True)
        # a rate that changes is a tensor on the device, where a captured step finds its newest value
        self._rate = torch.full((), lr, device=self._parameters[0].device) if warmup else None
        self._lr, self._warmup, self._clip, self._sparse, self.updates = lr, warmup, clip, sparse, 0
        self._share_rate()

    def begin(self) -> None:
        """Count an update and set its learning rate: the host's part, before ``step``, which may be captured."""
        if self._rate is not None:
            self._rate.fill_(self._lr * min(self.updates / self._warmup, 1.0))
        self.updates += 1

    def step(self, loss: Tensor, twice: bool = False) -> Tensor:
        """One step down ``loss``; returns the gradient's norm before clipping.

        ``twice`` takes two steps with the same gradient.
        """
        norm = optimizer_step(self._adam, self._parameters, loss, self._clip, self._sparse)
        if twice:
            self._adam.step()
        return norm

    def state_dict(self) -> dict:
        return {"adam": self._adam.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        """Continue from ``state_dict``."""
        self._adam.load_state_dict(state["adam"])
        self._share_rate()
        self.updates = int(state["updates"])

    def _share_rate(self) -> None:
        """Put the rate's tensor into AdamW, which would copy its value, also after loading a checkpoint's own."""
        if self._rate is not None:
            for group in self._adam.param_groups:
                group["lr"] = self._rate


def optimizer_step(
    optim: torch.optim.Optimizer,
    parameters: Iterable[nn.Parameter],
    loss: Tensor,
    clip: float,
    sparse: tuple[nn.Linear, float] | None = None,
) -> Tensor:
    """Backpropagate, clip the gradient's norm to ``clip`` and step; returns the norm before clipping, detached.

    The gradient is the mean over all ranks', which therefore all take the same step.

    The step is skipped, bit for bit, where the norm or the loss (0-dim) is not finite: under Huber's loss an infinite
    error has a finite gradient. The decision stays on the device: fused optimisers take it as ``found_inf``, as
    mixed-precision scalers do.
    """
    optim.zero_grad(set_to_none=True)
    loss.backward()
    parameters, loss = list(parameters), loss.detach()
    ranks.average_([loss, *(parameter.grad for parameter in parameters if parameter.grad is not None)])
    norm = nn.utils.clip_grad_norm_(parameters, clip, foreach=True)
    skip = ~torch.isfinite(norm + loss)
    # a CUDA graph captures only optimisers with this flag, and they refuse it outside a capture
    capturing = loss.is_cuda and torch.cuda.is_current_stream_capturing()
    for group in optim.param_groups:
        group["capturable"] = capturing
    optim.found_inf = skip.float()  # type: ignore[attr-defined]
    optim.step()
    if sparse is not None:
        layer, strength = sparse
        shrink_columns(layer, torch.where(skip, 0.0, strength * optim.param_groups[0]["lr"]))
    return norm.detach()


@torch.no_grad()
def shrink_columns(layer: nn.Linear, by: Tensor) -> None:
    """Shorten the column of weights that belongs to each input by ``by`` (0-dim), down to 0.

    After each gradient step of rate lr, with ``by`` = strength * lr, this is the proximal step of the group lasso
    (Scardapane et al. 2017): an input that does not lower the loss by as much is ignored in the end.
    """
    length = layer.weight.norm(dim=0, keepdim=True)
    layer.weight.mul_((1.0 - by / length.clamp_min(1e-12)).clamp_min(0.0))


class Trainable(nn.Module):
    """A module with its optimisers and its random stream."""

    optimisers: dict[str, Any]  # by the name under which their state is saved
    generator: torch.Generator

    def optim_state(self) -> dict[str, Any]:
        """Optimisers and random state: what ``state_dict`` lacks to continue bit for bit."""
        state = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        return {**state, "generator": self.generator.get_state()}

    def load_optim_state(self, state: dict[str, Any]) -> None:
        """Continue from ``optim_state``. On another kind of device the random stream starts anew."""
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state[name])
        restore_generator(self.generator, state["generator"])
