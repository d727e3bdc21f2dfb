"""Plain and noise-conditioned multi-layer perceptrons."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from dima_isaac.nn.blocks import AdaLayerNorm, FourierFeatures


def mlp(sizes: list[int], act: type[nn.Module] = nn.SiLU, norm: bool = False) -> nn.Sequential:
    """Linear layers of ``sizes`` with ``act`` (after a layer norm if ``norm``) between them."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        if i:
            layers += [nn.LayerNorm(fan_in)] if norm else []
            layers.append(act())
        layers.append(nn.Linear(fan_in, fan_out))
    return nn.Sequential(*layers)


class _Block(nn.Module):
    """x + W2 silu(W1 AdaLN(x))."""

    def __init__(self, width: int, cond: int) -> None:
        super().__init__()
        self.norm = AdaLayerNorm(width, cond)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return x + self.outer(F.silu(self.inner(self.norm(x, cond))))


class DenoiserMlp(nn.Module):
    """The light backbone: residual blocks whose norms are modulated by the noise level. Output zero at first."""

    def __init__(self, state: int, history: int, code: int, width: int, blocks: int, fourier: int, cond: int) -> None:
        super().__init__()
        self.noise = nn.Sequential(FourierFeatures(fourier), nn.Linear(fourier, cond), nn.SiLU(), nn.Linear(cond, cond))
        self.enter = nn.Linear((1 + history) * state + code, width)
        self.blocks = nn.ModuleList(_Block(width, cond) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, state)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def given(self, history: Tensor, codes: Tensor) -> tuple[Tensor, ...]:
        """What ``forward`` needs of history (B, history, D) and of each of the codes (S, B, C): (B, width) a code."""
        weight, past = self.enter.weight[:, self.leave.out_features :], history.flatten(1)
        shared = F.linear(past, weight[:, : past.shape[1]], self.enter.bias)
        return (shared + F.linear(codes, weight[:, past.shape[1] :])).unbind()

    def forward(self, noisy: Tensor, noise: Tensor, given: Tensor) -> Tensor:
        """noisy (B, D), noise (B,) or (1,), one of ``given`` -> (B, D)."""
        cond = F.silu(self.noise(noise))
        x = F.linear(noisy, self.enter.weight[:, : noisy.shape[1]]) + given
        for block in self.blocks:
            x = block(x, cond)
        return self.leave(F.silu(self.norm(x)))
