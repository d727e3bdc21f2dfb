"""The policy that rl-games trains for ``algo=ppo`` and ``algo=mappo``, without rl-games."""

from importlib.resources import files
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from dima_isaac.nn.layers import mlp
from dima_isaac.types import Dims

_EPSILON, _CLAMP = 1e-5, 5.0  # of rl-games' running statistics


def rl_games_settings() -> dict[str, Any]:
    """What rl-games is given for either algorithm (``cfg/rl_games.yaml``)."""
    values: dict[str, Any] = yaml.safe_load(files("dima_isaac.cfg").joinpath("rl_games.yaml").read_text())
    return values


class RlGamesActor(nn.Module):
    """obs (..., N, O) -> a diagonal Gaussian over actions (..., N, A), its deviation independent of the observation.

    All agents share the network, which sees a one-hot of the agent.
    """

    identity: Tensor
    mean: Tensor
    var: Tensor

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        inputs = dims.obs + dims.agents
        self.register_buffer("identity", torch.eye(dims.agents), persistent=False)
        self.register_buffer("mean", torch.zeros(inputs, dtype=torch.float64))
        self.register_buffer("var", torch.ones(inputs, dtype=torch.float64))
        self.net = mlp([inputs, *rl_games_settings()["network"]["mlp"]["units"], dims.action], nn.ELU)
        self.log_std = nn.Parameter(torch.zeros(dims.action))

    def own_names(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the ``state_dict`` of rl-games' model has of the actor, under this module's names."""
        names = {
            "running_mean_std.running_mean": "mean",
            "running_mean_std.running_var": "var",
            "a2c_network.sigma": "log_std",
            **{f"a2c_network.mu.{kind}": f"net.{len(self.net) - 1}.{kind}" for kind in ("weight", "bias")},
            **{f"a2c_network.actor_mlp.{name}": f"net.{name}" for name in self.net[:-1].state_dict()},
        }
        return {names[name]: value for name, value in weights.items() if name in names}

    def _mean(self, obs: Tensor) -> Tensor:
        rows = torch.cat([obs.float(), self.identity.expand(*obs.shape[:-1], -1)], -1)
        normed = (rows - self.mean.float()) / (self.var.float() + _EPSILON).sqrt()
        mean: Tensor = self.net(normed.clamp(-_CLAMP, _CLAMP))
        return mean

    def mode(self, obs: Tensor) -> Tensor:
        """The mean (..., N, A), clipped as the environment does."""
        return self._mean(obs).clamp(-1.0, 1.0)

    def act(self, obs: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw actions (..., N, A), which may leave [-1, 1], and give the log-density (..., N, A) of each entry."""
        normal = torch.distributions.Normal(self._mean(obs), self.log_std.exp())
        action = torch.normal(normal.mean, normal.stddev, generator=generator)
        return action, normal.log_prob(action)
