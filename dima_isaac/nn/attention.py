"""Pre-norm attention and feed-forward layers, without their residual connections."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dima_isaac.nn.blocks import GEGLU


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


class FeedForward(nn.Sequential):
    """Layer norm, four times as wide through GEGLU, and back."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 8 * width), GEGLU(), nn.Linear(4 * width, width))
