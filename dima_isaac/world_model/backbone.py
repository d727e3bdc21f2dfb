"""The default denoiser's network: a residual MLP, hundreds of times cheaper than the published U-Net and Perceiver."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dima_isaac.nn.layers import AdaLayerNorm, FourierFeatures
from dima_isaac.types import Dims

FOURIER = 16  # features of the noise level


class _Block(nn.Module):
    """x + W2 silu(W1 AdaLN(x))."""

    def __init__(self, width: int, cond: int) -> None:
        super().__init__()
        self.norm = AdaLayerNorm(width, cond)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return x + self.outer(F.silu(self.inner(self.norm(x, cond))))


class MlpBackbone(nn.Module):
    """Residual blocks whose layer norms are modulated by the noise level. The output is zero at first.

    Actions are encoded linearly: the blocks bring the non-linearity. History and action code enter the first layer
    linearly as well, so their part of it is computed once for all reverse steps.
    """

    def __init__(self, dims: Dims, history: int, width: int, blocks: int) -> None:
        super().__init__()
        cond = width // 2  # of the action code and of the noise embedding
        self.action_encoder = nn.Linear(history * dims.agents * dims.action + dims.agents, cond)
        self.noise_embedding = nn.Sequential(
            FourierFeatures(FOURIER), nn.Linear(FOURIER, cond), nn.SiLU(), nn.Linear(cond, cond)
        )
        self.input = nn.Linear((1 + history) * dims.state + cond, width)
        self.blocks = nn.ModuleList(_Block(width, cond) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, dims.state)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def condition(self, history: Tensor, actions: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The part of the first layer that no noisy sample changes, (B, width) for each of S masks.

        ``history`` (B, h, D), ``actions`` (S, B, h, N, A) with hidden ones at 0, ``mask`` (S, B, h, N).
        """
        stages, batch = mask.shape[:2]
        codes = self.action_encoder(torch.cat([actions.flatten(0, 1).flatten(1), mask[:, :, -1].flatten(0, 1)], -1))
        weight, past = self.input.weight[:, self.output.out_features :], history.flatten(1)
        shared = F.linear(past, weight[:, : past.shape[1]], self.input.bias)
        return (shared + F.linear(codes.unflatten(0, (stages, batch)), weight[:, past.shape[1] :])).unbind()

    def forward(self, noisy: Tensor, noise: Tensor, condition: Tensor) -> Tensor:
        """noisy (B, D), noise (B,) or (1,), one of ``condition`` -> (B, D)."""
        cond = F.silu(self.noise_embedding(noise))
        x = F.linear(noisy, self.input.weight[:, : noisy.shape[1]]) + condition
        for block in self.blocks:
            x = block(x, cond)
        return self.output(F.silu(self.norm(x)))
