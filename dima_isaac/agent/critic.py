"""The centralised value of the global state, in units normalised by running statistics of returns."""

import torch
from torch import Tensor, nn

from dima_isaac import ranks
from dima_isaac.agent.config import CriticConfig
from dima_isaac.nn.layers import mixed_precision, orthogonal_mlp
from dima_isaac.types import Dims

VALUE_DECAY, PUBLISHED_VALUE_DECAY = 0.999, 0.99999  # of the return statistics that values are normalised by


class ValueNorm(nn.Module):
    """Debiased exponential averages of a target's mean and second moment (Yu et al. 2022, MAPPO)."""

    mean: Tensor
    square: Tensor
    weight: Tensor

    def __init__(self, decay: float, eps: float = 1e-5, min_var: float = 1e-2) -> None:
        super().__init__()
        self.decay, self.eps, self.min_var = decay, eps, min_var
        for name in ("mean", "square", "weight"):
            self.register_buffer(name, torch.zeros(()))

    def update(self, target: Tensor, weight: Tensor) -> None:
        """Average in targets with ``weight`` of the same shape, unless their mean or mean square is not finite."""
        total, *sums = ranks.total(weight.sum(), *((value * weight).sum() for value in (target, target**2)))
        mean, square = (value / total.clamp_min(1e-8) for value in sums)
        good = mean.isfinite() & square.isfinite()  # an infinity would never leave the average
        for own, value in ((self.mean, mean), (self.square, square), (self.weight, torch.ones_like(mean))):
            own.lerp_(torch.where(good, value, own), 1.0 - self.decay)

    def stats(self) -> tuple[Tensor, Tensor]:
        """Debiased mean and standard deviation; 0 and 0.1 before the first update."""
        weight = self.weight.clamp_min(self.eps)
        mean = self.mean / weight
        var = (self.square / weight - mean**2).clamp_min(self.min_var)
        return mean, var.sqrt()

    def normalise(self, value: Tensor) -> Tensor:
        mean, std = self.stats()
        return (value - mean) / std

    def denormalise(self, value: Tensor) -> Tensor:
        mean, std = self.stats()
        return value * std + mean


class Critic(nn.Module):
    """(state x (..., D), the joint action that led to it (..., N, A)) -> value (...,) in normalised units.

    Only the ``published`` critic sees the action; it has ReLU in place of SiLU and slower statistics. With ``bf16`` all
    layers but the last compute in bfloat16.
    """

    def __init__(self, cfg: CriticConfig, dims: Dims, published: bool = False, bf16: bool = False) -> None:
        super().__init__()
        self.sees_action, self._bf16 = published, bf16
        inputs = dims.state + (dims.agents * dims.action if self.sees_action else 0)
        layers = orthogonal_mlp(inputs, cfg.hidden, 1, relu=published, out_gain=1.0)
        self.net = nn.Sequential(nn.LayerNorm(inputs), *layers)
        self.units = ValueNorm(PUBLISHED_VALUE_DECAY if published else VALUE_DECAY)

    def forward(self, state: Tensor, last_action: Tensor) -> Tensor:
        inputs = torch.cat([state, last_action.flatten(-2)], dim=-1) if self.sees_action else state
        return mixed_precision(self.net, inputs, self._bf16).squeeze(-1)
