"""Small world models and windows of known content."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from dima_isaac.types import Dims, Window
from dima_isaac.world_model.config import (
    Backbone,
    DecoderKind,
    DenoiserConfig,
    Ends,
    OptimConfig,
    Order,
    Precision,
    Reveal,
    RewardConfig,
    RewardKind,
    TargetKind,
    WorldModelConfig,
)
from dima_isaac.world_model.world_model import WorldModel

DIMS = Dims(agents=2, state=4, obs=6, action=2)


def view(dims: Dims):
    """The state followed by the agent's number, one-hot."""

    def observe(state: Tensor) -> Tensor:
        lead = (*state.shape[:-1], dims.agents)
        own = torch.eye(dims.agents).expand(*lead, dims.agents)
        return torch.cat([state.unsqueeze(-2).expand(*lead, dims.state), own], -1)

    return observe


def game(dims: Dims = DIMS, last_action_index: Tensor | None = None, output_only: Tensor | None = None):
    """What a world model needs of a task."""
    spec = SimpleNamespace(dims=dims, last_action_index=last_action_index, output_only=output_only)
    return SimpleNamespace(spec=spec, observe=view(dims))


def paper() -> WorldModelConfig:
    """The paper preset, written out: a test compares it with the YAML."""
    return WorldModelConfig(
        target=TargetKind.state,
        unroll=3,
        error_scale=0.0,
        value_weight=0.0,
        copy_last_action=False,
        clip_actions=False,
        z_clamp=0.0,
        decoder=DecoderKind.vq,
        precision=Precision.fp32,
        denoiser=DenoiserConfig(
            reveal=Reveal.sequential,
            order=Order.descending,
            backbone=Backbone.unet,
            ema=0.0,
            optim=OptimConfig(lr=1e-4, weight_decay=0.01, warmup=100, clip=1.0),
        ),
        reward=RewardConfig(
            kind=RewardKind.gpt,
            normalise=False,
            double_step=True,
            ends=Ends.timeouts,
            optim=OptimConfig(lr=1e-4, weight_decay=0.01, clip=10.0),
        ),
    )


def small(**over) -> WorldModelConfig:
    """A default model narrow enough for tests."""
    optim = OptimConfig(lr=1e-3)
    fields = {"optim": optim, "reveal": Reveal.sequential, "width": 64, "blocks": 2}
    fields |= {k: over.pop(k) for k in list(over) if k in DenoiserConfig.__dataclass_fields__}
    return WorldModelConfig(denoiser=DenoiserConfig(**fields), reward=RewardConfig(width=32), **over)


def build(
    cfg: WorldModelConfig,
    dims: Dims = DIMS,
    seed: int = 0,
    last_action_index: Tensor | None = None,
    output_only: Tensor | None = None,
) -> WorldModel:
    torch.manual_seed(seed)
    return WorldModel(cfg, game(dims, last_action_index, output_only))


def without_regression(world: WorldModel) -> WorldModel:
    """The target stays the normalised change: all of it is left to the denoiser."""
    world.target.refit = lambda updates: None
    return world


class Linear:
    """s' = s + 0.1 (M s + G a) with a hidden spring: a system that a world model must learn, and its transitions."""

    def __init__(self, dims: Dims = DIMS, seed: int = 1) -> None:
        self.dims = dims
        self.rng = torch.Generator().manual_seed(seed)
        self.pull = -0.5 * torch.eye(dims.state) + 0.3 * torch.randn(dims.state, dims.state, generator=self.rng)
        self.gain = torch.randn(dims.agents * dims.action, dims.state, generator=self.rng)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        return state + 0.1 * (state @ self.pull + action.flatten(-2) @ self.gain)

    def window(self, batch: int, rows: int) -> Window:
        """Windows of ``rows`` transitions, all valid, reward = mean of the arriving state, never terminal."""
        state = [torch.randn(batch, self.dims.state, generator=self.rng)]
        action = 2 * torch.rand(batch, rows, self.dims.agents, self.dims.action, generator=self.rng) - 1
        for t in range(rows - 1):
            state.append(self.step(state[-1], action[:, t]))
        states = torch.stack(state, 1)
        no = torch.zeros(batch, rows, dtype=torch.bool)
        return Window(states, action, states.mean(-1), no, ~no, no.clone())


def shaken(world: WorldModel) -> WorldModel:
    """Every parameter off its zero initialisation."""
    with torch.no_grad():
        for p in world.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return world
