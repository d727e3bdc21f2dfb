"""Joint actions over a short history as one vector, hiding what the mask hides."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dima_isaac.nn.attention import Attention, FeedForward


class LightActionEncoder(nn.Module):
    """One linear map of the masked actions and of the newest mask row; the backbone brings the non-linearity."""

    def __init__(self, agents: int, action: int, history: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(history * agents * action + agents, out)

    def forward(self, actions: Tensor, mask: Tensor) -> Tensor:
        """actions (B, history, N, A), mask (B, history, N) of 0 and 1 -> (B, out)."""
        shown = actions * mask.unsqueeze(-1)
        return self.linear(torch.cat([shown.flatten(1), mask[:, -1]], -1))


class Perceiver(nn.Module):
    """The published encoder (Jaegle et al. 2021): learned latents read one token per time and agent, then think."""

    def __init__(
        self, agents: int, action: int, history: int, out: int, token: int = 256, latents: int = 32, width: int = 512
    ) -> None:
        super().__init__()
        self.token = nn.Sequential(nn.Linear(action, token), nn.SiLU(), nn.Linear(token, token))
        self.agent = nn.Parameter(0.02 * torch.randn(agents, token))
        self.time = nn.Parameter(0.02 * torch.randn(history, 1, token))
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.read = Attention(width, token, heads=1, size=64)
        self.digest = FeedForward(width)
        self.think = nn.ModuleList(Attention(width, width, heads=8, size=64) for _ in range(2))
        self.reflect = nn.ModuleList(FeedForward(width) for _ in range(2))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out))

    def forward(self, actions: Tensor, mask: Tensor) -> Tensor:
        """actions (B, history, N, A), mask (B, history, N) of 0 and 1 -> (B, out)."""
        tokens = (self.token(actions) + self.agent + self.time).flatten(1, 2)  # (B, history * N, token)
        # copies: torch's counter of operations trips over a view of a parameter in a dream
        x = self.latents.repeat(actions.shape[0], 1, 1)
        x = x + self.read(x, tokens, mask.flatten(1).bool()[:, None, None])
        x = x + self.digest(x)
        for attend, digest in zip(self.think, self.reflect, strict=True):
            x = x + attend(x)
            x = x + digest(x)
        return self.out(x.mean(1))


class JointActionEncoder(nn.Module):
    """The published encoder of one complete joint action: one token per agent, three transformer layers, their mean."""

    def __init__(self, agents: int, action: int, width: int, layers: int = 3, heads: int = 8) -> None:
        super().__init__()
        self.token = nn.Sequential(nn.Linear(action, width), nn.SiLU(), nn.Linear(width, width))
        self.agent = nn.Parameter(0.02 * torch.randn(agents, width))
        self.attend = nn.ModuleList(Attention(width, width, heads, width // heads) for _ in range(layers))
        self.digest = nn.ModuleList(FeedForward(width) for _ in range(layers))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))

    def forward(self, action: Tensor) -> Tensor:
        """(..., N, A) -> (..., width)."""
        x = (self.token(action) + self.agent).flatten(0, -3)  # (M, N, width)
        for attend, digest in zip(self.attend, self.digest, strict=True):
            x = x + attend(x)
            x = x + digest(x)
        return self.out(x.mean(1)).unflatten(0, action.shape[:-2])
