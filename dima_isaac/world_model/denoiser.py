"""The denoiser D(y; sigma, history, actions) and its loss (DIMA equations 9 and 10)."""

from typing import Any

import torch
from torch import Tensor, nn

from dima_isaac.types import Dims
from dima_isaac.world_model import karras
from dima_isaac.world_model.backbone import MlpBackbone
from dima_isaac.world_model.config import Backbone, Precision, WorldModelConfig
from dima_isaac.world_model.paper.unet import UnetBackbone
from dima_isaac.world_model.reveal import draw_mask


class Denoiser(nn.Module):
    """An estimate of the clean target y from a noisy one, a history of states, and the actions that are visible."""

    def __init__(self, cfg: WorldModelConfig, dims: Dims) -> None:
        super().__init__()
        self.reveal, self._bf16 = cfg.denoiser.reveal, cfg.precision is Precision.bf16
        self.diffusion = cfg.denoiser.steps != 1
        self.backbone: MlpBackbone | UnetBackbone
        if cfg.denoiser.backbone is Backbone.mlp:
            self.backbone = MlpBackbone(dims, cfg.history, cfg.denoiser.width, cfg.denoiser.blocks)
        else:
            self.backbone = UnetBackbone(dims, cfg.history)

    def encode(self, history: Tensor, actions: Tensor, visible: Tensor) -> tuple[Any, ...]:
        """All that D depends on beside y and sigma: one condition for each of S masks, in one batched call.

        ``history`` (B, h, D) features, ``actions`` (B, h, N, A) of which the last row is the current one, ``visible``
        (S, B, N) agents whose current action is visible; earlier actions always are.
        """
        stages, batch, agents = visible.shape
        past = torch.ones(stages, batch, actions.shape[1] - 1, agents, device=visible.device)
        mask = torch.cat([past, visible.unsqueeze(2)], 2)
        with torch.autocast(visible.device.type, torch.bfloat16, enabled=self._bf16):
            return self.backbone.condition(history, actions * mask.unsqueeze(-1), mask)

    # DIMA eq. 10
    def forward(self, noisy: Tensor, sigma: Tensor, condition: Any, mask: Tensor) -> Tensor:
        """D: ``noisy`` (B, D), ``sigma`` (B, 1) or (), ``mask`` (D,) 1 where y carries information -> (B, D)."""
        scales = karras.precondition(sigma)
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self._bf16):
            raw = self.backbone(scales.inp * noisy * mask, scales.noise.reshape(-1), condition)
        return scales.skip * noisy + scales.out * raw.float()

    # DIMA eq. 9
    def loss(
        self, y: Tensor, history: Tensor, actions: Tensor, mask: Tensor, weights: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """|F - F*|^2 of each sample (B,), F* being what makes D exact, and the estimate of y (B, D).

        Noise level and visible agents are drawn independently for each sample. ``weights`` (D,) have mean 1.
        Without ``diffusion`` the network sees nothing of y: what is left of the loss is least squares.
        """
        if self.diffusion:
            sigma = karras.draw_sigma(y.shape[0], generator)
            noisy = karras.add_noise(y, sigma, generator)
        else:
            sigma, noisy = torch.full_like(y[:, :1], karras.SIGMA_MAX), torch.zeros_like(y)
        visible = draw_mask(self.reveal, y.shape[0], actions.shape[2], generator)
        (condition,) = self.encode(history, actions, visible.unsqueeze(0))
        clean = self(noisy, sigma, condition, mask)
        error = (clean - y) / karras.precondition(sigma).out
        return (error.square() * weights).mean(1), clean
