"""The decentralised policy: one network that every agent runs on its own observation."""

import math

import torch
from torch import Tensor, nn

from dima_isaac.agent.config import ActorConfig
from dima_isaac.nn.layers import mixed_precision, orthogonal_mlp
from dima_isaac.nn.moments import Moments
from dima_isaac.types import Dims

STD_MAX = 0.5  # standard deviation = STD_MAX * sigmoid(l), l learned per action dimension
STD_INIT = 1.0  # the initial l
_LOG_2PI = math.log(2.0 * math.pi)


class AgentInputs(nn.Module):
    """obs (..., N, O) -> what a shared network reads of it (..., N, size): normalised, with a one-hot of the agent."""

    identity: Tensor

    def __init__(self, dims: Dims, agent_id: bool, published: bool = False) -> None:
        """``published``: LayerNorm on the raw observation in place of running statistics per agent and entry."""
        super().__init__()
        self.size = dims.obs + (dims.agents if agent_id else 0)
        self.agent_id = agent_id
        self.norm = nn.LayerNorm(dims.obs) if published else None
        self.moments = None if published else Moments(dims.agents * dims.obs)
        self.register_buffer("identity", torch.eye(dims.agents), persistent=False)

    def track(self, obs: Tensor) -> None:
        """Update the observation statistics with real observations (..., N, O)."""
        if self.moments is not None:
            self.moments.update(obs.flatten(-2))

    def forward(self, obs: Tensor) -> Tensor:
        """(..., N, size)."""
        x = self._normalised(obs)
        if self.agent_id:
            x = torch.cat([x, self.identity.expand(*obs.shape[:-2], *self.identity.shape)], dim=-1)
        return x

    def _normalised(self, obs: Tensor) -> Tensor:
        if self.norm is not None:
            return self.norm(obs)
        assert self.moments is not None  # one of the two exists
        mean = self.moments.mean.to(obs.dtype).view(obs.shape[-2:])
        scale = (self.moments.var + 1e-8).rsqrt().to(obs.dtype).view(obs.shape[-2:])
        return ((obs - mean) * scale).clamp(-10.0, 10.0)


class Actor(nn.Module):
    """obs (..., N, O) -> a diagonal Gaussian over actions (..., N, A), its deviation independent of the observation."""

    mask: Tensor

    def __init__(
        self,
        cfg: ActorConfig,
        dims: Dims,
        action_mask: Tensor | None = None,
        published: bool = False,
        bf16: bool = False,
    ) -> None:
        """``action_mask`` (N, A) is False where a shorter agent's action is padding.

        ``published``: ReLU and LayerNorm on the raw observation, in place of SiLU and running statistics per agent.
        ``bf16``: all layers but the last compute in bfloat16.
        """
        super().__init__()
        self._bf16 = bf16
        self.inputs = AgentInputs(dims, cfg.agent_id, published)
        self.net = orthogonal_mlp(self.inputs.size, cfg.hidden, dims.action, relu=published, out_gain=0.01)
        self.log_std = nn.Parameter(torch.full((dims.action,), STD_INIT))
        mask = torch.ones(dims.agents, dims.action) if action_mask is None else action_mask.float()
        self.register_buffer("mask", mask, persistent=False)

    @property
    def std(self) -> Tensor:
        """Standard deviation (A,); at the start 0.3655."""
        return STD_MAX * torch.sigmoid(self.log_std)

    def mode(self, obs: Tensor) -> Tensor:
        """The mean action (..., N, A), unbounded."""
        return mixed_precision(self.net, self.inputs(obs), self._bf16)

    def act(self, obs: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw an action (..., N, A) and return it with its log-probability (..., N)."""
        mean = self.mode(obs)
        action = mean + self.std * torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return action, self._log_prob(mean, action)

    def evaluate(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability (..., N) of ``action`` and entropy (..., N), summed over action dimensions."""
        mean = self.mode(obs)
        entropy = self.std.log() + 0.5 * (1.0 + _LOG_2PI)
        return self._log_prob(mean, action), (entropy * self.mask).sum(-1).expand(mean.shape[:-1])

    def _log_prob(self, mean: Tensor, action: Tensor) -> Tensor:
        std = self.std
        logp = -0.5 * ((action - mean) / std) ** 2 - std.log() - 0.5 * _LOG_2PI
        return (logp * self.mask).sum(-1)
