"""Joint actions over a short history as one vector, hiding what the mask hides."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LightActionEncoder(nn.Module):
    """One linear map of the masked actions and of the newest mask row; the backbone brings the non-linearity."""

    def __init__(self, agents: int, action: int, history: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(history * agents * action + agents, out)

    def forward(self, actions: Tensor, mask: Tensor) -> Tensor:
        """actions (B, history, N, A), mask (B, history, N) of 0 and 1 -> (B, out)."""
        shown = actions * mask.unsqueeze(-1)
        return self.linear(torch.cat([shown.flatten(1), mask[:, -1]], -1))
