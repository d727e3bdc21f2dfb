"""The published denoiser backbone: history and noisy next state as a signal of length 4 through a 1-D U-Net.

Layout after DIAMOND (Alonso et al. 2024): adaptive group norm in every residual block, no attention, skip
connections from a level's second block, first block and input, in that order.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dima_isaac.nn.blocks import AdaGroupNorm, FourierFeatures

LEVELS, DEPTH = 3, 2


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
        self.shrink = nn.ModuleList(nn.Conv1d(channels, channels, 3, 2, 1) for _ in range(LEVELS - 1))
        self.stretch = nn.ModuleList(nn.ConvTranspose1d(channels, channels, 4, 2, 1) for _ in range(LEVELS - 1))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B, channels, L), cond (B, cond)."""
        skips: list[list[Tensor]] = []
        for level, blocks in enumerate(cast(list[nn.ModuleList], list(self.down))):
            if level:
                x = self.shrink[level - 1](x)
            kept = [x]
            for block in blocks:
                x = block(x, cond)
                kept.append(x)
            skips.append(kept)
        for block in self.middle:
            x = block(x, cond)
        for level, blocks in enumerate(cast(list[nn.ModuleList], list(self.up))):
            if level:
                x = self.stretch[level - 1](x)
            kept = skips.pop()
            for block in blocks:
                x = block(torch.cat([x, kept.pop()], 1), cond)
        return x


class DenoiserUnet(nn.Module):
    """The U-Net with its projections. The output convolution starts at zero, its bias does not."""

    def __init__(self, state: int, history: int, channels: int, cond: int) -> None:
        """``history`` + 1 must be divisible by 4 (two halvings)."""
        super().__init__()
        if (history + 1) % 2 ** (LEVELS - 1):
            raise ValueError(f"the U-Net halves history + 1 = {history + 1} rows twice; use history 3 or 7")
        self.noise = FourierFeatures(cond)
        self.cond = nn.Sequential(nn.Linear(cond, cond), nn.SiLU(), nn.Linear(cond, cond))
        self.enter = nn.Conv1d(state, channels, 3, padding=1)
        self.unet = UNet1d(channels, cond)
        self.norm = nn.GroupNorm(max(1, channels // 32), channels)
        self.leave = nn.Conv1d(channels, state, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def given(self, history: Tensor, codes: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """What ``forward`` needs of history (B, history, D) and of each of the codes (S, B, cond)."""
        return tuple((history, code) for code in codes)

    def forward(self, noisy: Tensor, noise: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
        """noisy (B, D), noise (B,) or (1,), one of ``given`` -> (B, D)."""
        history, code = given
        cond = self.cond(self.noise(noise) + code)
        signal = torch.cat([history, noisy.unsqueeze(1)], 1).transpose(1, 2)  # (B, D, history + 1)
        x = self.unet(self.enter(signal), cond)
        return self.leave(F.silu(self.norm(x)))[..., -1]
