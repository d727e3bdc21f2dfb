"""The decentralised policy of SAC: a Gaussian whose deviation depends on the observation, squashed by tanh."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dima_isaac.agent.actor import AgentInputs
from dima_isaac.agent.config import ActorConfig
from dima_isaac.nn.layers import normed_mlp
from dima_isaac.types import Dims

LOG_STD_MIN, LOG_STD_MAX = -6.0, 1.0
LOG_STD_INIT = -0.7  # with -2.5 a cheetah fell on its back before it had tried to run
_LOG_2PI = math.log(2.0 * math.pi)


class SquashedActor(nn.Module):
    """obs (..., N, O) -> tanh of a diagonal Gaussian over (..., N, A): actions in (-1, 1)."""

    def __init__(self, cfg: ActorConfig, dims: Dims) -> None:
        super().__init__()
        self.inputs = AgentInputs(dims, agent_id=cfg.agent_id)
        self.net = normed_mlp(self.inputs.size, cfg.hidden, 2 * dims.action, nn.LayerNorm)
        head = self.net[-1]
        assert isinstance(head, nn.Linear)
        with torch.no_grad():  # first actions near 0, of one deviation
            head.weight.mul_(0.1)
            head.bias.zero_()

    def _parameters_of(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the deviation before the squashing, (..., N, A) each."""
        mean, raw = self.net(self.inputs(obs)).float().chunk(2, -1)
        middle, half = 0.5 * (LOG_STD_MAX + LOG_STD_MIN), 0.5 * (LOG_STD_MAX - LOG_STD_MIN)
        start = math.atanh((LOG_STD_INIT - middle) / half)
        return mean, middle + half * (raw + start).tanh()

    def mode(self, obs: Tensor) -> Tensor:
        """tanh of the mean, (..., N, A)."""
        return self._parameters_of(obs)[0].tanh()

    # SAC (Haarnoja et al. 2018), appendix C
    def act(self, obs: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw actions (..., N, A) and give the log-density (..., N, A) of each entry; gradients pass through."""
        mean, log_std = self._parameters_of(obs)
        noise = torch.randn(mean.shape, device=mean.device, generator=generator)
        raw = mean + log_std.exp() * noise
        squash = 2.0 * (math.log(2.0) - raw - F.softplus(-2.0 * raw))  # log(1 - tanh(raw)^2)
        return raw.tanh(), -0.5 * noise.square() - log_std - 0.5 * _LOG_2PI - squash
