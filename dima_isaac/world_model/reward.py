"""Reward and continuation of a step: a head that sees (s, a, s'), or the published transformer."""

import copy
import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dima_isaac import ranks
from dima_isaac.nn.layers import mlp
from dima_isaac.nn.moments import Moments
from dima_isaac.types import Dims, Metrics, Window
from dima_isaac.world_model.config import Ends, Precision, RewardConfig, RewardKind
from dima_isaac.world_model.karras import SIGMA_DATA
from dima_isaac.world_model.paper.reward import RewardGpt
from dima_isaac.world_model.target import Target


class RewardHead(nn.Module):
    """r and the continuation logit of one step, from the normalised change, the joint action and z'."""

    longest = math.inf

    def __init__(self, dims: Dims, width: int) -> None:
        super().__init__()
        self.window = 2  # rows that one step takes
        self.net = mlp([2 * dims.state + dims.agents * dims.action, width, width, 2])
        with torch.no_grad():
            cast(nn.Linear, self.net[-1]).bias[1] = 4.0  # episodes go on until data say otherwise

    def forward(
        self, target: Target, state: Tensor, action: Tensor, valid: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Raw s (B, T, D) and actions (B, T - 1, N, A) -> reward and continuation logit of the T - 1 steps.

        ``valid`` and ``generator`` are the transformer's.
        """
        before, after = state[:, :-1], state[:, 1:]
        change = target.normalised_change(before, after) / SIGMA_DATA  # z and z' nearly coincide at control rate
        inputs = [change * target.input_mask, action.flatten(2), target.z(after) * target.input_mask]
        reward, logit = self.net(torch.cat(inputs, -1)).unbind(-1)
        return reward, logit


class RewardModel(nn.Module):
    """Either kind, its reward scale and its loss."""

    def __init__(self, cfg: RewardConfig, dims: Dims, precision: Precision) -> None:
        super().__init__()
        self.cfg, self._bf16 = cfg, precision is Precision.bf16
        kind = RewardHead if cfg.kind is RewardKind.head else RewardGpt
        self.net: RewardHead | RewardGpt = kind(dims, cfg.width)
        self.average = copy.deepcopy(self.net) if cfg.ema else None  # what predicts
        self.window, self.longest = self.net.window, self.net.longest
        self.scale = Moments(1)

    @property
    def sparse(self) -> tuple[nn.Linear, float] | None:
        """The head's first layer and ``sparsity``."""
        if isinstance(self.net, RewardGpt) or not self.cfg.sparsity:
            return None
        return cast(nn.Linear, self.net.net[0]), self.cfg.sparsity

    def _outputs(
        self,
        net: RewardHead | RewardGpt,
        target: Target,
        state: Tensor,
        action: Tensor,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Those of ``net`` in float32; the reward in units of ``_units``."""
        with torch.autocast(state.device.type, torch.bfloat16, enabled=self._bf16):
            reward, logit = net(target, state, action, valid, generator)
        return reward.float(), logit.float()

    def _units(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation in which the reward is learned, (1,) each."""
        mean, std = self.scale.mean.float(), (self.scale.var + 1e-6).sqrt().float()
        return (mean, std) if self.cfg.normalise else (torch.zeros_like(mean), torch.ones_like(std))

    def loss(self, target: Target, window: Window, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        """SmoothL1 of the reward plus binary cross-entropy of continuation, over transitions inside an episode.

        The continuation's label is "the task did not end the episode there"; a time-out is an end only as published
        (``Ends``).
        """
        counted = window.valid[:, :-1].float()
        self.scale.update(window.reward[:, 1:].unsqueeze(-1), counted)
        reward, logit = self._outputs(self.net, target, window.state, window.action[:, :-1], window.valid, generator)
        mean, std = self._units()
        error = F.smooth_l1_loss(reward, (window.reward[:, 1:] - mean) / std, reduction="none")
        ended = window.terminal if self.cfg.ends is Ends.task else window.last
        continues = 1.0 - ended[:, 1:].float()
        end = F.binary_cross_entropy_with_logits(logit, continues, reduction="none")
        number = ranks.mean(counted.sum()).clamp_min(1.0)
        error, end = (error * counted).sum() / number, (end * counted).sum() / number
        return error + end, {"world/reward": error.detach(), "world/end": end.detach()}

    def predict(
        self, target: Target, state: Tensor, action: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Raw s (B, H + 1, D), actions (B, H, N, A) -> reward (B, H) and probability of continuation (B, H).

        Where ends are ``drawn`` the latter is 0 or 1.
        """
        reward, logit = self._outputs(self.average or self.net, target, state, action)
        mean, std = self._units()
        cont = logit.sigmoid()
        return reward * std + mean, cont.bernoulli(generator=generator) if self.cfg.ends is Ends.drawn else cont
