"""What the denoiser predicts, and every conversion between that and raw states.

    s   raw state
    z   (s - mean) / std, with running moments of s
    x   sigma_data * z: what histories and the critic are given in
    d   sigma_data * (s' - s - mean) / std, with running moments of the one-step change: the normalised change
    y   the target of diffusion: x' (``StateTarget``), or what a linear regression leaves of d (``ResidualTarget``)

At 60 Hz a state hardly changes in one step, and most of its change is linear in state and action: the residual is what
a network's accuracy is worth spending on.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from dima_isaac.nn.moments import Moments
from dima_isaac.nn.ridge import Ridge
from dima_isaac.types import GameSpec, Window
from dima_isaac.world_model.config import TargetKind, WorldModelConfig
from dima_isaac.world_model.karras import SIGMA_DATA

CONSTANT = 1e-10  # a dimension is constant if its change has less than this part of its variance
# A change counts as at most so many standard deviations: what has not been touched yet moves by rounding alone, and its
# first real move would be millions of them.
CHANGE_CLAMP = 30.0
PUBLISHED_PRIOR = 1e-4  # rows of a standard normal that the published running moments begin with

SOLVE_EVERY = 50  # updates between two solutions of the regression: a Cholesky factor each
DECAY = 0.9995  # of the regression's older rows, per update: about 2,000 batches count
PENALTY = 2.5e-4  # ridge, relative to the mean Gram matrix: keeps constant and repeated inputs solvable
LEAST_UNIT = 0.03  # smallest u, in units of d: what is linear to three digits is not magnified


class Target(nn.Module, ABC):
    """Running moments of states and changes, the masks of a task's dimensions, and the advance of a state.

    ``input_mask`` (D,) is 0 for dimensions that networks do not see. Entries of the state that repeat the action just
    taken are written from it (``copy_last_action``), so nothing predicts them. Subclasses' methods without a docstring
    are documented in this class.
    """

    first_rows: ClassVar[bool] = False  # whether an episode's first state is a target, predicted from nothing
    copied_to: Tensor  # state columns that repeat an action entry
    copied_from: Tensor  # which entry of the flat joint action each of them repeats
    not_copied: Tensor
    input_mask: Tensor

    def __init__(self, cfg: WorldModelConfig, spec: GameSpec, prior: float = 0.0) -> None:
        super().__init__()
        size = spec.dims.state
        self.z_clamp = cfg.z_clamp
        self.state = Moments(size, prior)
        self.change = Moments(size)
        index = torch.full((1,), -1)
        if spec.last_action_index is not None and cfg.copy_last_action:
            index = spec.last_action_index.detach().to("cpu").flatten()
        source = torch.arange(index.shape[0])[index >= 0]
        not_copied = torch.ones(size)
        not_copied[index[source]] = 0.0
        self.register_buffer("copied_to", index[source], persistent=False)
        self.register_buffer("copied_from", source, persistent=False)
        self.register_buffer("not_copied", not_copied, persistent=False)
        self.register_buffer("input_mask", torch.ones(size), persistent=False)

    # -- what a kind of target defines ------------------------------------------------------------------------------

    @abstractmethod
    def linear(self, x: Tensor, actions: Tensor) -> Tensor:
        """The linear prediction (B, D) that ``encode`` and ``decode`` need, from x (B, D), actions (B, h, N, A)."""

    @abstractmethod
    def encode(self, state: Tensor, after: Tensor, linear: Tensor) -> Tensor:
        """Two consecutive s (B, D) -> y (B, D)."""

    @abstractmethod
    def decode(self, state: Tensor, y: Tensor, linear: Tensor) -> Tensor:
        """s and y (B, D) -> the s that follows."""

    @abstractmethod
    def features(self, x: Tensor, valid: Tensor) -> Tensor:
        """The history x (B, h, D), ``valid`` (B, h) bool, as the denoiser sees it: same shape."""

    @abstractmethod
    def uncertain(self) -> Tensor:
        """(D,) 1 where a prediction can err: neither copied from the action nor constant."""

    @abstractmethod
    def dx_dy(self) -> Tensor:
        """(D,) how far x moves for one unit of y."""

    def refit(self, updates: int) -> None:
        """What is to be solved now and then, after ``updates`` updates of the denoiser."""

    # -- what all share ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def track(self, window: Window) -> None:
        """Learn from replayed rows (B, T, ...)."""
        self.change.update(window.state[:, 1:] - window.state[:, :-1], window.valid[:, :-1])

    def state_scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of s, (D,) float32."""
        return self.state.mean.float(), (self.state.var + 1e-8).sqrt().float()

    def change_scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the one-step change, (D,) float32; both 0 where the state is constant."""
        var, constant = self.change.var, self.change.var <= CONSTANT * self.state.var
        return self.change.mean.masked_fill(constant, 0.0).float(), var.sqrt().masked_fill(constant, 0.0).float()

    def z(self, state: Tensor) -> Tensor:
        """s (..., D) -> z."""
        mean, std = self.state_scale()
        return (state - mean) / std

    def x(self, state: Tensor) -> Tensor:
        """s (..., D) -> x."""
        return SIGMA_DATA * self.z(state)

    def raw(self, x: Tensor) -> Tensor:
        """x (..., D) -> s."""
        return self.state_scale()[0] + self.ds_dx() * x

    def ds_dx(self) -> Tensor:
        """(D,) how far s moves for one unit of x."""
        return self.state_scale()[1] / SIGMA_DATA

    def normalised_change(self, state: Tensor, after: Tensor) -> Tensor:
        """Two consecutive s (..., D) -> d; 0 where the state is constant."""
        mean, std = self.change_scale()
        most = SIGMA_DATA * CHANGE_CLAMP
        unit = torch.where(std > 0, std, 1.0)  # a division by 0, even if not chosen, would have gradients of NaN
        return (SIGMA_DATA * torch.where(std > 0, (after - state - mean) / unit, 0.0)).clamp(-most, most)

    def denoised(self) -> Tensor:
        """(D,) 1 where the denoiser predicts: uncertain, and seen by networks."""
        return self.uncertain() * self.input_mask

    def advance(self, state: Tensor, y: Tensor, linear: Tensor, action: Tensor) -> Tensor:
        """The s after ``state`` (B, D) under ``action`` (B, N, A), whatever y: bounded, and with the action copied."""
        after = self.decode(state, y, linear)
        if self.z_clamp:
            # a state that is already further out is not pulled inwards: only leaving is forbidden
            mean, std = self.state_scale()
            most = self.z_clamp * std
            after = after.clamp(torch.minimum(state, mean - most), torch.maximum(state, mean + most))
        return after.index_copy(-1, self.copied_to, action.flatten(-2)[..., self.copied_from])


class StateTarget(Target):
    """y = x', the next normalised state (DIMA, section 4)."""

    first_rows = True

    def __init__(self, cfg: WorldModelConfig, spec: GameSpec) -> None:
        super().__init__(cfg, spec, prior=PUBLISHED_PRIOR)

    def linear(self, x: Tensor, actions: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def encode(self, state: Tensor, after: Tensor, linear: Tensor) -> Tensor:
        return self.x(after)

    def decode(self, state: Tensor, y: Tensor, linear: Tensor) -> Tensor:
        mean, std = self.state_scale()
        return mean + std * (y / SIGMA_DATA)

    def features(self, x: Tensor, valid: Tensor) -> Tensor:
        return x * valid.unsqueeze(-1)

    def uncertain(self) -> Tensor:
        return self.not_copied

    def dx_dy(self) -> Tensor:
        return torch.ones_like(self.not_copied)


class ResidualTarget(Target):
    """y = (d - A [x, a, 1]) / u: what running ridge regression leaves, in units u of its own deviation.

    A is refitted every ``SOLVE_EVERY`` updates, u = RMS residual / sigma_data. Until the first solution A = 0, u = 1.
    Output-only dimensions (contact forces) are predicted by A alone, and no network sees them.
    """

    def __init__(self, cfg: WorldModelConfig, spec: GameSpec) -> None:
        super().__init__(cfg, spec)
        dims, self.history = spec.dims, cfg.history
        self.regression = Ridge(dims.state + cfg.history * dims.agents * dims.action, dims.state, DECAY, PENALTY)
        self.regression.residual_rms.fill_(SIGMA_DATA)
        if spec.output_only is not None:
            self.input_mask = (~spec.output_only).float().to("cpu")

    @torch.no_grad()
    def track(self, window: Window) -> None:
        super().track(window)
        state, after, actions = window.state[:, -2], window.state[:, -1], window.action[:, -1 - self.history : -1]
        inputs = torch.cat([self.x(state), actions.flatten(1)], 1)
        self.regression.update(inputs, self.normalised_change(state, after), window.valid[:, -2])

    def refit(self, updates: int) -> None:
        if updates and updates % SOLVE_EVERY == 0:
            self.regression.solve()

    def _unit(self) -> Tensor:
        """u (D,)."""
        return (self.regression.residual_rms / SIGMA_DATA).clamp_min(LEAST_UNIT)

    def linear(self, x: Tensor, actions: Tensor) -> Tensor:
        prediction: Tensor = self.regression(torch.cat([x, actions.flatten(1)], 1))
        return prediction

    def encode(self, state: Tensor, after: Tensor, linear: Tensor) -> Tensor:
        return (self.normalised_change(state, after) - linear) / self._unit()

    def decode(self, state: Tensor, y: Tensor, linear: Tensor) -> Tensor:
        mean, std = self.change_scale()
        return state + mean + std * ((linear + self._unit() * y) / SIGMA_DATA)

    def features(self, x: Tensor, valid: Tensor) -> Tensor:
        """All but the newest row as changes in units of d, so that velocities are not differences of large inputs.

        A change out of a padded row is 0, as are dimensions that networks do not see.
        """
        x = x * valid.unsqueeze(-1) * self.input_mask
        std, change = self.state_scale()[1], self.change_scale()[1]
        unit = torch.where(change > 0, std / change.clamp_min(1e-30), 0.0)
        most = SIGMA_DATA * CHANGE_CLAMP
        changes = ((x[:, 1:] - x[:, :-1]) * unit * valid[:, :-1].unsqueeze(-1)).clamp(-most, most)
        return torch.cat([changes, x[:, -1:]], 1)

    def uncertain(self) -> Tensor:
        return self.not_copied * (self.change_scale()[1] > 0)

    def dx_dy(self) -> Tensor:
        std = self.state_scale()[1]
        return torch.where(std > 0, self.change_scale()[1] * self._unit() / std, 0.0)


def build_target(cfg: WorldModelConfig, spec: GameSpec) -> Target:
    """The target that ``cfg.target`` names."""
    kind: type[Target] = StateTarget if cfg.target is TargetKind.state else ResidualTarget
    return kind(cfg, spec)
