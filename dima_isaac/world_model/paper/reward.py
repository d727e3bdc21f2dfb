"""The published model of reward and continuation: a causal transformer over states and joint actions."""

import torch
from torch import Tensor, nn

from dima_isaac.nn.layers import mlp
from dima_isaac.types import Dims
from dima_isaac.world_model.config import GPT_STEPS
from dima_isaac.world_model.paper.gpt import Gpt
from dima_isaac.world_model.paper.perceiver import JointActionEncoder
from dima_isaac.world_model.target import Target

LAYERS, HEADS, DROPOUT = 6, 4, 0.1


class RewardGpt(nn.Module):
    """Tokens z_0, a_0, z_1, a_1, ...; reward and continuation of step t are read at a_t."""

    longest = GPT_STEPS  # trajectory that it takes

    def __init__(self, dims: Dims, width: int) -> None:
        super().__init__()
        self.window = GPT_STEPS + 1
        self.state = mlp([dims.state, width, width, width], norm=True)
        self.action = JointActionEncoder(dims.agents, dims.action, width)
        self.gpt = Gpt(2 * GPT_STEPS, width, LAYERS, HEADS, DROPOUT)
        self.reward = mlp([width, width, width, 1], nn.ReLU)
        self.continuation = mlp([width, width, width, 1], nn.ReLU)
        self.apply(_init)

    def forward(
        self, target: Target, state: Tensor, action: Tensor, valid: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Raw s (B, T, D) and actions (B, T - 1, N, A) -> reward and continuation logit of the T - 1 steps.

        ``valid`` (B, T) hides padding; with a ``generator`` dropout is active.
        """
        states = self.state(target.z(state[:, :-1]) * target.input_mask)
        tokens = torch.stack([states, self.action(action)], 2).flatten(1, 2)  # (B, 2 (T - 1), width), alternating
        tokens_valid = None if valid is None else valid[:, :-1].repeat_interleave(2, 1)
        hidden = self.gpt(tokens, tokens_valid, generator)[:, 1::2]
        return self.reward(hidden).squeeze(-1), self.continuation(hidden).squeeze(-1)


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
