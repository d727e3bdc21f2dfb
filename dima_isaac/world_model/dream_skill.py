"""How far ahead dreams predict reward and survival, on rows that no update has seen.

A dream from real states under the recorded actions is compared, 1, 5 and 15 steps on, with what happened. The skill is
1 - sum (dreamt - true)^2 / sum (true - mean)^2 of the newest rows: 1 is perfect, 0 no better than the mean.
"""

import torch
from torch import Tensor, nn

from dima_isaac import ranks
from dima_isaac.types import Metrics, Window
from dima_isaac.world_model.imagine import predict_states
from dima_isaac.world_model.world_model import WorldModel

HORIZONS = (1, 5, 15)
"""Steps after which a dream is compared."""

DECAY = 0.9  # of older evidence, per round
SURVIVAL_ERROR = 0.01  # mean squared error of P(survival) that is skill 0 where too few episodes end to compare


class DreamSkill(nn.Module):
    """Decayed sums of the errors and of the variance of what was to be predicted."""

    error: Tensor
    spread: Tensor
    rows: Tensor

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        size = (2, len(HORIZONS))  # reward, survival
        self.register_buffer("error", torch.zeros(size, device=device))
        self.register_buffer("spread", torch.zeros(size, device=device))
        self.register_buffer("rows", torch.zeros(len(HORIZONS), device=device))

    def forward(self) -> Tensor:
        """The smaller skill of reward and survival after each of ``HORIZONS``, (len(HORIZONS),)."""
        floor = torch.stack([torch.full_like(self.rows, 1e-12), SURVIVAL_ERROR * self.rows])
        return (1.0 - self.error / torch.maximum(self.spread, floor)).amin(0)

    @torch.no_grad()
    def update(self, world: WorldModel, windows: list[Window]) -> Metrics:
        """Dream along ``windows``, for each of ``HORIZONS`` h (B, world.history + h) rows that no update has seen."""
        for sums in (self.error, self.spread, self.rows):
            sums.mul_(DECAY)
        for i, (steps, window) in enumerate(zip(HORIZONS, windows, strict=True)):
            reward, alive = dream_along(world, window, steps)
            counted = window.valid[:, 0].float()
            truth = torch.stack([window.reward[:, -1], (~window.terminal[:, -1]).float()])
            rows, sums = ranks.total(counted.sum(), (truth * counted).sum(1, keepdim=True))
            error = (torch.stack([reward, alive]) - truth).square()
            spread = (truth - sums / rows.clamp_min(1.0)).square()
            error, spread = ranks.total(*((square * counted).sum(1) for square in (error, spread)))
            self.error[:, i] += error
            self.spread[:, i] += spread
            self.rows[i] += rows
        return self.metrics()

    def metrics(self) -> Metrics:
        """The skill by name."""
        skill = self()
        return {f"world/skill_{h}": skill[i] for i, h in enumerate(HORIZONS)}


def dream_along(world: WorldModel, window: Window, steps: int) -> tuple[Tensor, Tensor]:
    """Reward and P(survival) (B,) of the last of ``steps`` of a dream that takes the recorded actions of ``window``.

    Windows are of episodes that ran until then, so an end before it counts in neither the dream nor the truth.
    """
    h = world.history
    actions = window.action[:, h - 1 : h - 1 + steps]
    states = predict_states(world, world.context(window.rows(0, h)), actions)
    reward, cont = world.predict_reward(states, actions)
    return reward[:, -1], cont[:, -1]
