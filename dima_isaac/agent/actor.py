"""The decentralised policy: one network that every agent runs on its own observation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dima_isaac.agent.config import ActorConfig, PolicyKind
from dima_isaac.nn.moments import Moments
from dima_isaac.nn.orthogonal import orthogonal_mlp
from dima_isaac.types import Dims

_LOG_2PI = math.log(2.0 * math.pi)
_EDGE = 1e-6  # keeps squashed and Beta actions off the ends of [-1, 1], where their density is infinite


class Actor(nn.Module):
    """obs (..., N, O) -> a distribution over actions (..., N, A)."""

    mask: Tensor
    identity: Tensor

    def __init__(self, cfg: ActorConfig, dims: Dims, action_mask: Tensor | None = None) -> None:
        """``action_mask`` (N, A) is False where a shorter agent's action is padding."""
        super().__init__()
        self.cfg = cfg
        inputs = dims.obs + (dims.agents if cfg.agent_id else 0)
        outputs = dims.action * (2 if cfg.kind is PolicyKind.beta else 1)
        self.norm = None if cfg.normalise else nn.LayerNorm(dims.obs)
        self.moments = Moments(dims.agents * dims.obs) if cfg.normalise else None
        self.net = orthogonal_mlp(inputs, cfg.hidden, outputs, cfg.activation.name, out_gain=0.01)
        self.log_std = nn.Parameter(torch.full((dims.action,), cfg.std_init))
        mask = torch.ones(dims.agents, dims.action) if action_mask is None else action_mask.float()
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("identity", torch.eye(dims.agents), persistent=False)

    @property
    def std(self) -> Tensor:
        """Standard deviation (A,) of the Gaussian kinds; at the start std_max * sigmoid(std_init)."""
        return self.cfg.std_max * torch.sigmoid(self.log_std)

    def track(self, obs: Tensor) -> None:
        """Update the observation statistics with real observations (..., N, O)."""
        if self.moments is not None:
            self.moments.update(obs.flatten(-2))

    def head(self, obs: Tensor) -> Tensor:
        """The network's output (..., N, A) or (..., N, 2A)."""
        x = self._normalised(obs)
        if self.cfg.agent_id:
            identity = self.identity.expand(*obs.shape[:-2], *self.identity.shape)
            x = torch.cat([x, identity], dim=-1)
        return self.net(x)

    def _normalised(self, obs: Tensor) -> Tensor:
        if self.norm is not None:
            return self.norm(obs)
        assert self.moments is not None  # one of the two exists
        mean = self.moments.mean.to(obs.dtype).view(obs.shape[-2:])
        scale = (self.moments.var + 1e-8).rsqrt().to(obs.dtype).view(obs.shape[-2:])
        return ((obs - mean) * scale).clamp(-10.0, 10.0)

    def act(self, obs: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw an action (..., N, A) and return it with its log-probability (..., N)."""
        out = self.head(obs)
        if self.cfg.kind is PolicyKind.beta:
            alpha, beta = self._beta(out)
            x = torch._sample_dirichlet(torch.stack([alpha, beta], -1), generator)[..., 0]
            action = (2.0 * x - 1.0).clamp(-1 + _EDGE, 1 - _EDGE)
        else:
            action = out + self.std * torch.randn(out.shape, generator=generator, device=out.device, dtype=out.dtype)
            if self.cfg.kind is PolicyKind.squashed:
                action = action.tanh().clamp(-1 + _EDGE, 1 - _EDGE)
        return action, self._log_prob(out, action)

    def mode(self, obs: Tensor) -> Tensor:
        """The deterministic action (..., N, A) used in evaluation."""
        out = self.head(obs)
        if self.cfg.kind is PolicyKind.beta:
            alpha, beta = self._beta(out)
            return 2.0 * alpha / (alpha + beta) - 1.0
        return out.tanh() if self.cfg.kind is PolicyKind.squashed else out

    def evaluate(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability (..., N) of ``action`` and entropy (..., N), summed over action dimensions."""
        out = self.head(obs)
        return self._log_prob(out, action), self._entropy(out, action)

    def _log_prob(self, out: Tensor, action: Tensor) -> Tensor:
        if self.cfg.kind is PolicyKind.beta:
            alpha, beta = self._beta(out)
            x = (0.5 * (action + 1.0)).clamp(0.5 * _EDGE, 1.0 - 0.5 * _EDGE)
            norm = torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)
            logp = (alpha - 1) * x.log() + (beta - 1) * (1 - x).log() - norm - math.log(2.0)
            return (logp * self.mask).sum(-1)
        std = self.std
        jacobian: Tensor | float = 0.0
        if self.cfg.kind is PolicyKind.squashed:
            pre = torch.atanh(action)
            jacobian = 2.0 * (math.log(2.0) - pre - F.softplus(-2.0 * pre))  # log(1 - tanh(pre)^2)
            action = pre
        logp = -0.5 * ((action - out) / std) ** 2 - std.log() - 0.5 * _LOG_2PI - jacobian
        return (logp * self.mask).sum(-1)

    def _entropy(self, out: Tensor, action: Tensor) -> Tensor:
        if self.cfg.kind is PolicyKind.gaussian:
            per_dim = self.std.log() + 0.5 * (1.0 + _LOG_2PI)
            return (per_dim * self.mask).sum(-1).expand(out.shape[:-1])
        if self.cfg.kind is PolicyKind.beta:
            alpha, beta = self._beta(out)
            total = alpha + beta
            per_dim = (
                torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(total)
                - (alpha - 1) * torch.digamma(alpha) - (beta - 1) * torch.digamma(beta)
                + (total - 2) * torch.digamma(total) + math.log(2.0)
            )  # fmt: skip
            return (per_dim * self.mask).sum(-1)
        return -self._log_prob(out, action)  # one-sample estimate: the squashed Gaussian has no closed form

    def _beta(self, out: Tensor) -> tuple[Tensor, Tensor]:
        alpha, beta = (F.softplus(out) + 1.0 + _EDGE).chunk(2, dim=-1)
        return alpha, beta
