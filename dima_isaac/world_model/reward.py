"""Reward and continuation of a step: a head that sees (s, a, s'), or the published transformer."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dima_isaac.nn.mlp import mlp
from dima_isaac.nn.moments import Moments
from dima_isaac.types import Dims, Metrics, Window
from dima_isaac.world_model.config import Precision, RewardConfig, RewardKind
from dima_isaac.world_model.paper.gpt import Gpt
from dima_isaac.world_model.paper.perceiver import JointActionEncoder
from dima_isaac.world_model.target import Space


class RewardHead(nn.Module):
    """r and the continuation logit of one step, from z, the joint action and z'."""

    def __init__(self, cfg: RewardConfig, dims: Dims) -> None:
        super().__init__()
        self.window = 2
        wide = 2 * dims.state + dims.agents * dims.action
        self.net = mlp([wide, *[cfg.width] * cfg.layers, 2])
        with torch.no_grad():
            cast(nn.Linear, self.net[-1]).bias[1] = 4.0  # episodes go on until data say otherwise

    def forward(self, space: Space, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Raw s (B, T, D) and actions (B, T - 1, N, A) -> reward and continuation logit of the T - 1 steps."""
        now, after = state[:, :-1], state[:, 1:]
        # the change in its own units: z and z' nearly coincide at control rate
        other = space.moved(now, after) / space.data if space.by_change else space.z(now)
        seen = [space.visible(other), action.flatten(2), space.visible(space.z(after))]
        reward, logit = self.net(torch.cat(seen, -1)).unbind(-1)
        return reward, logit


class RewardGpt(nn.Module):
    """The published model: tokens z_0, a_0, z_1, a_1, ...; reward and continuation of step t are read at a_t."""

    def __init__(self, cfg: RewardConfig, dims: Dims) -> None:
        super().__init__()
        self.window = cfg.block + 1
        self.state = mlp([dims.state, cfg.width, cfg.width, cfg.width], norm=True)
        self.action = JointActionEncoder(dims.agents, dims.action, cfg.width)
        self.gpt = Gpt(2 * cfg.block, cfg.width, cfg.layers, cfg.heads, cfg.dropout)
        self.reward = mlp([cfg.width, cfg.width, cfg.width, 1], nn.ReLU)
        self.goes_on = mlp([cfg.width, cfg.width, cfg.width, 1], nn.ReLU)
        self.apply(_init)

    def tokens(self, space: Space, state: Tensor, action: Tensor) -> Tensor:
        """Raw s (B, T, D) and actions (B, T, N, A) -> (B, 2 T, width), alternating."""
        return torch.stack([self.state(space.visible(space.z(state))), self.action(action)], 2).flatten(1, 2)

    def read(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The transformer's output at action tokens (B, T, width) -> reward and continuation logit (B, T)."""
        return self.reward(hidden).squeeze(-1), self.goes_on(hidden).squeeze(-1)

    def forward(
        self,
        space: Space,
        state: Tensor,
        action: Tensor,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As ``RewardHead``, in one causal pass. ``valid`` (B, T) hides padding; with a ``generator`` dropout acts."""
        seen = None if valid is None else valid[:, :-1].repeat_interleave(2, 1)
        hidden = self.gpt(self.tokens(space, state[:, :-1], action), seen, generator)
        return self.read(hidden[:, 1::2])


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class RewardModel(nn.Module):
    """Either kind, its reward scale and its loss."""

    def __init__(self, cfg: RewardConfig, dims: Dims, precision: Precision) -> None:
        super().__init__()
        self.cfg, self._bf16 = cfg, precision is Precision.bf16
        kind = RewardHead if cfg.kind is RewardKind.head else RewardGpt
        self.net: RewardHead | RewardGpt = kind(cfg, dims)
        self.window = self.net.window
        self.scale = Moments(1)

    def _guess(
        self, space: Space, state: Tensor, action: Tensor, valid: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(state.device.type, torch.bfloat16, enabled=self._bf16):
            if isinstance(self.net, RewardHead):
                reward, logit = self.net(space, state, action)
            else:
                reward, logit = self.net(space, state, action, valid, generator)
        return reward.float(), logit.float()

    def _units(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation in which the reward is learned, (1,) each."""
        mean, std = self.scale.mean.float(), (self.scale.var + 1e-6).sqrt().float()
        return (mean, std) if self.cfg.normalise else (torch.zeros_like(mean), torch.ones_like(std))

    def loss(self, space: Space, window: Window, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        """SmoothL1 of the reward plus binary cross-entropy of continuation, over transitions inside an episode.

        The continuation's target is "the task did not end the episode there"; a time-out is not an end.
        """
        counted = (window.valid & ~window.first)[:, 1:].float()
        self.scale.update(window.reward[:, 1:].unsqueeze(-1), counted)
        reward, logit = self._guess(space, window.state, window.action[:, :-1], window.valid, generator)
        mean, std = self._units()
        miss = F.smooth_l1_loss(reward, (window.reward[:, 1:] - mean) / std, reduction="none")
        goes_on = 1.0 - window.terminal[:, 1:].float()
        end = F.binary_cross_entropy_with_logits(logit, goes_on, reduction="none")
        number = counted.sum().clamp_min(1.0)
        miss, end = (miss * counted).sum() / number, (end * counted).sum() / number
        return miss + end, {"world/reward": miss.detach(), "world/end": end.detach()}

    def predict(self, space: Space, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Raw s (B, H + 1, D), actions (B, H, N, A) -> reward (B, H) and probability of going on (B, H)."""
        reward, logit = self._guess(space, state, action, None, None)
        mean, std = self._units()
        return reward * std + mean, logit.sigmoid()
