"""The denoiser D(y; sigma, history, actions, visible agents) and its loss (DIMA equations 9 and 10).

Time in a window of 6 rows with history 3, at unroll pass j = 0:

    row            0      1      2      3      4      5
    state        hist   hist   hist  TARGET    .      .
    action       all    all    seen    -       .      .      seen = visible agents only

Pass j moves one row to the right and finds the model's own predictions in place of the states it has passed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dima_isaac.nn.mlp import DenoiserMlp
from dima_isaac.types import Dims, Window
from dima_isaac.world_model import karras
from dima_isaac.world_model.actions import LightActionEncoder
from dima_isaac.world_model.config import ActionEncoder, Backbone, DenoiserConfig, Precision
from dima_isaac.world_model.paper.perceiver import Perceiver
from dima_isaac.world_model.paper.unet import DenoiserUnet
from dima_isaac.world_model.reveal import draw_mask
from dima_isaac.world_model.target import Space


class Denoiser(nn.Module):
    """D and the networks inside it."""

    def __init__(self, cfg: DenoiserConfig, dims: Dims, history: int, precision: Precision) -> None:
        super().__init__()
        self.cfg, self.history, self._bf16 = cfg, history, precision is Precision.bf16
        n, a, d = dims.agents, dims.action, dims.state
        if cfg.actions is ActionEncoder.light:
            self.actions: nn.Module = LightActionEncoder(n, a, history, cfg.cond)
        else:
            self.actions = Perceiver(n, a, history, cfg.cond)
        self.net: DenoiserMlp | DenoiserUnet
        if cfg.backbone is Backbone.mlp:
            self.net = DenoiserMlp(d, history, cfg.cond, cfg.width, cfg.blocks, cfg.fourier, cfg.cond)
        else:
            self.net = DenoiserUnet(d, history, cfg.channels, cfg.cond)

    def encode(self, history: Tensor, actions: Tensor, seen: Tensor) -> tuple[Any, ...]:
        """One condition per stage, all in one batched call.

        ``history`` (B, h, D) features, ``actions`` (B, h, N, A) of which the last row is the current one, ``seen``
        (S, B, N) visible agents of the current row; those of earlier rows are always visible.
        """
        count, batch, agents = seen.shape
        past = torch.ones(count, batch, self.history - 1, agents, device=seen.device)
        mask = torch.cat([past, seen.unsqueeze(2)], 2)
        shown = actions * mask.unsqueeze(-1)
        with torch.autocast(seen.device.type, torch.bfloat16, enabled=self._bf16):
            code = self.actions(shown.flatten(0, 1), mask.flatten(0, 1))
            return self.net.given(history, code.unflatten(0, (count, batch)))

    # DIMA eq. 10
    def forward(self, noisy: Tensor, sigma: Tensor, condition: Any, free: Tensor) -> Tensor:
        """D: ``noisy`` (B, D), ``sigma`` (B, 1) or (), ``free`` (D,) 1 where there is something to denoise; (B, D)."""
        scales = karras.precondition(sigma, self.cfg.sigma_data, self.cfg.offset)
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self._bf16):
            raw = self.net(scales.inp * noisy * free, scales.noise.reshape(-1), condition)
        return scales.skip * noisy + scales.out * raw.float()

    # DIMA eq. 9
    def loss(self, space: Space, window: Window, unroll: int, generator: torch.Generator) -> Tensor:
        """Mean over ``unroll`` passes of |F - F*|^2, F* being what makes D exact.

        One noise level and one set of visible agents per sample and pass. Rows that are padding or that no action
        led to are not targets.
        """
        cfg, h = self.cfg, self.history
        free, weight = space.diffused(), space.loss_weights()
        counts = window.valid & ~window.first
        rows = list(window.state.unbind(1))
        losses = []
        for j in range(unroll):
            past, truth, counted = torch.stack(rows[j : j + h], 1), window.state[:, j + h], counts[:, j + h]
            actions = window.action[:, j : j + h]
            batch, agents = actions.shape[0], actions.shape[2]
            x = space.x(past)
            base = space.base(x[:, -1], actions)
            target = torch.where(counted.unsqueeze(1), space.y(past[:, -1], truth, base), 0.0)
            sigma = karras.draw(batch, cfg.train_mean, cfg.train_std, cfg.sigma_min, cfg.train_max, generator)
            noise = torch.randn(2, *target.shape, device=target.device, generator=generator)
            noisy = target + cfg.offset * noise[0] + sigma * noise[1]
            seen = draw_mask(cfg.reveal, batch, agents, cfg.full_fraction, generator)
            history = space.features(x, window.valid[:, j : j + h])
            clean = self(noisy, sigma, self.encode(history, actions, seen.unsqueeze(0))[0], free)
            out = karras.precondition(sigma, cfg.sigma_data, cfg.offset).out
            error = (((clean - target) / out).square() * weight).mean(1)
            losses.append((error * counted).sum() / counted.sum().clamp_min(1))
            after = space.advance(past[:, -1], space.shrunk(clean.detach()), base, actions[:, -1])
            rows[j + h] = torch.where(counted.unsqueeze(1), after, truth)
        return torch.stack(losses).mean()
