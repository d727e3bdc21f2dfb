"""A small causal transformer.

Dropout draws from the caller's generator, so that training continues bit for bit after a restart; without one
there is no dropout.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def dropout(x: Tensor, p: float, generator: torch.Generator | None) -> Tensor:
    """Inverted dropout with the random numbers of ``generator``; the identity without one."""
    if generator is None or not p:
        return x
    keep = torch.rand(x.shape, device=x.device, generator=generator) >= p
    return x * keep / (1.0 - p)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, p: float) -> None:
        super().__init__()
        self.heads, self.p = heads, p
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor, generator: torch.Generator | None) -> Tensor:
        """x (B, L, width), mask (B or 1, 1, L, L) bool, True = attend -> (B, L, width)."""
        query, key, value = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if generator is None:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:
            score = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).masked_fill(~mask, float("-inf"))
            mixed = dropout(score.softmax(-1), self.p, generator) @ value
        x = x + dropout(self.out(mixed.transpose(1, 2).flatten(2)), self.p, generator)
        return x + dropout(self.mlp(self.norm2(x)), self.p, generator)


class Gpt(nn.Module):
    """Tokens in, tokens out; position t sees positions up to t."""

    causal: Tensor

    def __init__(self, length: int, width: int, layers: int, heads: int, p: float) -> None:
        super().__init__()
        self.p = p
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(_Block(width, heads, p) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("causal", torch.ones(length, length, dtype=torch.bool).tril(), persistent=False)

    def forward(self, tokens: Tensor, valid: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """tokens (B, L, width), ``valid`` (B, L) bool hides padding -> (B, L, width).

        Raises:
            ValueError: more tokens than positions.
        """
        length = tokens.shape[1]
        if length > self.position.shape[0]:
            raise ValueError(f"{length} tokens do not fit the {self.position.shape[0]} positions of this transformer")
        mask = self.causal[None, None, :length, :length]
        if valid is not None:
            # a padded token sees itself, so that no row of the softmax is empty
            own = torch.eye(length, dtype=torch.bool, device=tokens.device)
            mask = (mask & valid[:, None, None]) | own
        x = dropout(tokens + self.position[:length], self.p, generator)
        for block in self.blocks:
            x = block(x, mask, generator)
        return self.norm(x)
