"""The published denoiser network: history and noisy target as a signal of length 4 through a 1-D U-Net.

Layout after DIAMOND (Alonso et al. 2024): adaptive group norm in every residual block, no attention, skip
connections from a level's second block, first block and input, in that order.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dima_isaac.nn.layers import FourierFeatures
from dima_isaac.types import Dims
from dima_isaac.world_model.paper.perceiver import Perceiver

CHANNELS, COND = 64, 256  # of the signal; numbers of the condition vector
LEVELS, DEPTH = 3, 2


class AdaGroupNorm(nn.Module):
    """Group norm over channels (32 per group) whose scale and shift are linear in a condition vector."""

    def __init__(self, channels: int, cond: int) -> None:
        super().__init__()
        self.groups = max(1, channels // 32)
        self.modulate = nn.Linear(cond, 2 * channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B, channels, L), cond (B, cond) -> (B, channels, L)."""
        scale, shift = self.modulate(cond).unsqueeze(-1).chunk(2, 1)
        return F.group_norm(x, self.groups, eps=1e-5) * (1.0 + scale) + shift


class _ResBlock(nn.Module):
    """r + conv0(silu(norm(conv(silu(norm(x)))))), whose last convolution starts at zero."""

    def __init__(self, fan_in: int, fan_out: int, cond: int) -> None:
        super().__init__()
        self.match = nn.Conv1d(fan_in, fan_out, 1) if fan_in != fan_out else nn.Identity()
        self.norm1 = AdaGroupNorm(fan_in, cond)
        self.conv1 = nn.Conv1d(fan_in, fan_out, 3, padding=1)
        self.norm2 = AdaGroupNorm(fan_out, cond)
        self.conv2 = nn.Conv1d(fan_out, fan_out, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x, cond)))
        return self.match(x) + self.conv2(F.silu(self.norm2(hidden, cond)))


class UNet1d(nn.Module):
    """(B, channels, L) -> the same, L divisible by 4."""

    def __init__(self, channels: int, cond: int) -> None:
        super().__init__()

        def blocks(fan_in: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(_ResBlock(fan_in, channels, cond) for _ in range(count))

        self.down = nn.ModuleList(blocks(channels, DEPTH) for _ in range(LEVELS))
        self.middle = blocks(channels, DEPTH)
        self.up = nn.ModuleList(blocks(2 * channels, DEPTH + 1) for _ in range(LEVELS))
        self.downsample = nn.ModuleList(nn.Conv1d(channels, channels, 3, 2, 1) for _ in range(LEVELS - 1))
        self.upsample = nn.ModuleList(nn.ConvTranspose1d(channels, channels, 4, 2, 1) for _ in range(LEVELS - 1))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B, channels, L), cond (B, cond) -> (B, channels, L)."""
        skips: list[list[Tensor]] = []
        for level, blocks in enumerate(cast(list[nn.ModuleList], list(self.down))):
            if level:
                x = self.downsample[level - 1](x)
            kept = [x]
            for block in blocks:
                x = block(x, cond)
                kept.append(x)
            skips.append(kept)
        for block in self.middle:
            x = block(x, cond)
        for level, blocks in enumerate(cast(list[nn.ModuleList], list(self.up))):
            if level:
                x = self.upsample[level - 1](x)
            kept = skips.pop()
            for block in blocks:
                x = block(torch.cat([x, kept.pop()], 1), cond)
        return x


class UnetBackbone(nn.Module):
    """The U-Net with its projections and the Perceiver. The output convolution starts at zero, its bias does not."""

    def __init__(self, dims: Dims, history: int) -> None:
        """``history`` + 1 is divisible by 4 (two halvings)."""
        super().__init__()
        self.action_encoder = Perceiver(dims, history, COND)
        self.noise_embedding = FourierFeatures(COND)
        self.cond = nn.Sequential(nn.Linear(COND, COND), nn.SiLU(), nn.Linear(COND, COND))
        self.input = nn.Conv1d(dims.state, CHANNELS, 3, padding=1)
        self.unet = UNet1d(CHANNELS, COND)
        self.norm = nn.GroupNorm(max(1, CHANNELS // 32), CHANNELS)
        self.output = nn.Conv1d(CHANNELS, dims.state, 3, padding=1)
        nn.init.zeros_(self.output.weight)

    def condition(self, history: Tensor, actions: Tensor, mask: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """The history and the code of the actions, for each of S masks.

        ``history`` (B, h, D), ``actions`` (S, B, h, N, A) with hidden ones at 0, ``mask`` (S, B, h, N).
        """
        codes = self.action_encoder(actions.flatten(0, 1), mask.flatten(0, 1)).unflatten(0, mask.shape[:2])
        return tuple((history, code) for code in codes)

    def forward(self, noisy: Tensor, noise: Tensor, condition: tuple[Tensor, Tensor]) -> Tensor:
        """noisy (B, D), noise (B,) or (1,), one of ``condition`` -> (B, D)."""
        history, code = condition
        cond = self.cond(self.noise_embedding(noise) + code)
        signal = torch.cat([history, noisy.unsqueeze(1)], 1).transpose(1, 2)  # (B, D, history + 1)
        x = self.unet(self.input(signal), cond)
        return self.output(F.silu(self.norm(x)))[..., -1]
