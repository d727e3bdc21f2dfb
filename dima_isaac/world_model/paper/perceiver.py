"""The published encoders of joint actions, and the pre-norm attention layers that they are made of."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dima_isaac.types import Dims

TOKEN, LATENTS, WIDTH = 256, 32, 512  # of the Perceiver: numbers of a token, latent vectors, numbers of a latent


class GEGLU(nn.Module):
    """Half of the input, gated by the GELU of the other half (Shazeer 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., 2 width) -> (..., width)."""
        value, gate = x.chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Sequential):
    """Layer norm, four times as wide through GEGLU, and back."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 8 * width), GEGLU(), nn.Linear(4 * width, width))


class Attention(nn.Module):
    """Multi-head attention of ``width`` queries over ``context`` keys; both are layer-normed first.

    Self-attention (no ``context`` given in the call) norms once.
    """

    def __init__(self, width: int, context: int, heads: int, size: int) -> None:
        """``heads`` heads of ``size`` numbers each."""
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(context) if context != width else None
        self.query = nn.Linear(width, heads * size)
        self.keys = nn.Linear(context, 2 * heads * size)
        self.out = nn.Linear(heads * size, width)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, L, width), context (B, M, context), mask (B, 1, 1 or L, M) bool, True = attend -> (B, L, width)."""
        x = self.norm(x)
        if context is None:
            context = x
        elif self.norm_context is not None:
            context = self.norm_context(context)
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.keys(context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Perceiver(nn.Module):
    """Learned latents attend to one token per time and agent, then to each other (Jaegle et al. 2021)."""

    def __init__(self, dims: Dims, history: int, out: int) -> None:
        super().__init__()
        self.token = nn.Sequential(nn.Linear(dims.action, TOKEN), nn.SiLU(), nn.Linear(TOKEN, TOKEN))
        self.agent_embedding = nn.Parameter(torch.randn(dims.agents, TOKEN))
        self.time_embedding = nn.Parameter(torch.randn(history, 1, TOKEN))
        self.latents = nn.Parameter(torch.randn(LATENTS, WIDTH))
        self.cross_attention = Attention(WIDTH, TOKEN, heads=1, size=64)
        self.cross_mlp = FeedForward(WIDTH)
        self.self_attention = nn.ModuleList(Attention(WIDTH, WIDTH, heads=8, size=64) for _ in range(2))
        self.self_mlp = nn.ModuleList(FeedForward(WIDTH) for _ in range(2))
        self.out = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, out))

    def forward(self, actions: Tensor, mask: Tensor) -> Tensor:
        """actions (B, history, N, A), mask (B, history, N) of 0 and 1 -> (B, out)."""
        tokens = (self.token(actions) + self.agent_embedding + self.time_embedding).flatten(1, 2)
        # copies: torch's counter of operations cannot take a view of a parameter inside an imagined step
        x = self.latents.repeat(actions.shape[0], 1, 1)
        x = x + self.cross_attention(x, tokens, mask.flatten(1).bool()[:, None, None])
        x = x + self.cross_mlp(x)
        for attention, feed_forward in zip(self.self_attention, self.self_mlp, strict=True):
            x = x + attention(x)
            x = x + feed_forward(x)
        return self.out(x.mean(1))


class JointActionEncoder(nn.Module):
    """The encoder of one complete joint action: one token per agent, three transformer layers, their mean."""

    def __init__(self, agents: int, action: int, width: int, layers: int = 3, heads: int = 8) -> None:
        super().__init__()
        self.token = nn.Sequential(nn.Linear(action, width), nn.SiLU(), nn.Linear(width, width))
        self.agent_embedding = nn.Parameter(0.02 * torch.randn(agents, width))
        self.self_attention = nn.ModuleList(Attention(width, width, heads, width // heads) for _ in range(layers))
        self.self_mlp = nn.ModuleList(FeedForward(width) for _ in range(layers))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))

    def forward(self, action: Tensor) -> Tensor:
        """(..., N, A) -> (..., width)."""
        x = (self.token(action) + self.agent_embedding).flatten(0, -3)  # (M, N, width)
        for attention, feed_forward in zip(self.self_attention, self.self_mlp, strict=True):
            x = x + attention(x)
            x = x + feed_forward(x)
        return self.out(x.mean(1)).unflatten(0, action.shape[:-2])
