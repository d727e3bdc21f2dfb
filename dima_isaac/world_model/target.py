"""The spaces of the world model: raw s, normalised z, x = sigma_data * z, and y, where diffusion happens.

``target`` says what y is: the next x itself (``state``); the one-step change of s in units of its own standard
deviation, times sigma_data (``change``); or what a linear regression on state and joint action leaves of that
change, again in units of its own deviation (``residual``). At 60 Hz a state hardly moves in one step, and most of
how it moves is linear: what remains is where the network's accuracy is worth spending. Every conversion is here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dima_isaac.nn.moments import Moments
from dima_isaac.nn.ridge import Ridge
from dima_isaac.nn.trust import Trust
from dima_isaac.types import Dims, Window
from dima_isaac.world_model.config import Target, WorldModelConfig

_STILL = 1e-10  # a dimension whose change has less than this part of its variance never moves

_KEPT = 0.9  # of the value_weights of rounds before

_LEAST = 0.1  # loss weight of a dimension that has not been predicted yet, relative to one that always was


class Space(nn.Module):
    """Running moments and what follows from them."""

    action_columns: Tensor
    action_source: Tensor
    free: Tensor
    input_mask: Tensor | None
    value_weights: Tensor

    def __init__(
        self, cfg: WorldModelConfig, dims: Dims, last_action_index: Tensor | None, output_only: Tensor | None = None
    ) -> None:
        """``last_action_index`` (N, A): where the state repeats the action just taken, -1 where it does not.

        ``output_only`` (D,) bool: what the next state does not depend on. A linear regression (``residual``), if there
        is one, predicts it alone; denoiser and reward do not see it or spend their accuracy on it.
        """
        super().__init__()
        self.data, self.z_clamp = cfg.denoiser.sigma_data, cfg.z_clamp
        self.reach = self.data * cfg.change_clamp if cfg.change_clamp else torch.inf
        self.by_change = cfg.target is not Target.state
        self.floor, self.value_weight = cfg.residual_floor, cfg.value_weight
        acts = cfg.history * dims.agents * dims.action
        self.linear = None
        if cfg.target is Target.residual:
            self.linear = Ridge(dims.state + acts, dims.state, cfg.linear_decay, cfg.linear_penalty)
            self.linear.miss.fill_(self.data)
        self.trust = Trust(dims.state, cfg.trust_decay) if self.by_change and cfg.trust_decay else None
        self.register_buffer("value_weights", torch.ones(dims.state))
        self.state = Moments(dims.state, cfg.prior_count)
        self.change = Moments(dims.state)
        flat = (
            torch.full((1,), -1)
            if last_action_index is None or not cfg.copy_last_action
            else last_action_index.detach().to("cpu").flatten()
        )
        source = torch.arange(flat.shape[0])[flat >= 0]
        self.register_buffer("action_columns", flat[source], persistent=False)
        self.register_buffer("action_source", source, persistent=False)
        free = torch.ones(dims.state)
        free[self.action_columns] = 0.0
        input_mask = None if output_only is None or self.linear is None else (~output_only).float().to("cpu")
        self.register_buffer("free", free, persistent=False)
        self.register_buffer("input_mask", input_mask, persistent=False)

    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of s, (D,) float32."""
        return self.state.mean.float(), (self.state.var + 1e-8).sqrt().float()

    def _change_scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the change; both 0 where the state stands still."""
        var, still = self.change.var, self.change.var <= _STILL * self.state.var
        return self.change.mean.masked_fill(still, 0.0).float(), var.sqrt().masked_fill(still, 0.0).float()

    @torch.no_grad()
    def track(self, window: Window, history: int) -> None:
        """Learn from replayed rows (B, T, ...): the change's moments from all, the regression from the newest step."""
        counts = window.valid & ~window.first
        self.change.update(window.state[:, 1:] - window.state[:, :-1], counts[:, 1:])
        if self.linear is not None:
            now, after, acts = window.state[:, -2], window.state[:, -1], window.action[:, -1 - history : -1]
            inputs = torch.cat([self.x(now), acts.flatten(1)], 1)
            self.linear.update(inputs, self.moved(now, after), counts[:, -1])

    def z(self, s: Tensor) -> Tensor:
        """s -> z."""
        mean, std = self._scale()
        return (s - mean) / std

    def x(self, s: Tensor) -> Tensor:
        """s -> x."""
        return self.data * self.z(s)

    def moved(self, now: Tensor, after: Tensor) -> Tensor:
        """Two consecutive s -> the change between them, of deviation sigma_data; 0 where nothing ever moves."""
        mean, std = self._change_scale()
        return (self.data * torch.where(std > 0, (after - now - mean) / std, 0.0)).clamp(-self.reach, self.reach)

    def base(self, x: Tensor, actions: Tensor) -> Tensor:
        """The linear prediction of ``moved`` from x (B, D) now and ``actions`` (B, history, N, A); 0 without one."""
        return torch.zeros_like(x) if self.linear is None else self.linear(torch.cat([x, actions.flatten(1)], 1))

    def _unit(self) -> Tensor:
        """How much of ``moved`` one y is, (D,)."""
        if self.linear is None:
            return torch.ones_like(self.free)
        return (self.linear.miss / self.data).clamp_min(self.floor)

    def y(self, now: Tensor, after: Tensor, base: Tensor) -> Tensor:
        """Two consecutive s and ``base`` -> y, (..., D)."""
        return (self.moved(now, after) - base) / self._unit() if self.by_change else self.x(after)

    def shrunk(self, y: Tensor) -> Tensor:
        """As much of a prediction y (B, D) as unseen steps bore out; nothing of readouts, where none was made."""
        y = self.visible(y)
        return y if self.trust is None else y * self.trust.gain

    def advance(self, now: Tensor, y: Tensor, base: Tensor, action: Tensor) -> Tensor:
        """The s after ``now`` (B, D), given ``y`` and ``base`` (B, D) and the ``action`` (B, N, A) that is echoed."""
        mean, std = self._scale()
        if self.by_change:
            shift, spread = self._change_scale()
            after = now + shift + spread * ((base + self._unit() * y) / self.data)
        else:
            after = mean + std * (y / self.data)
        if self.z_clamp:
            # a state that is already further out is not yanked inwards: only leaving is forbidden
            reach = self.z_clamp * std
            after = after.clamp(torch.minimum(now, mean - reach), torch.maximum(now, mean + reach))
        return after.index_copy(-1, self.action_columns, action.flatten(-2)[..., self.action_source])

    def open(self) -> Tensor:
        """(D,) 1 where a step may miss, 0 where the state is echoed or (``change``) constant."""
        return self.free * (self._change_scale()[1] > 0) if self.by_change else self.free

    def diffused(self) -> Tensor:
        """(D,) 1 where y carries information: ``open``, and no output_only."""
        return self.visible(self.open())

    def visible(self, x: Tensor) -> Tensor:
        """x (..., D) with readouts at 0."""
        return x if self.input_mask is None else x * self.input_mask

    def loss_weights(self) -> Tensor:
        """(D,) weights of the denoiser's loss, mean 1: what can be predicted and what decides the value count most."""
        weight = self.diffused()
        if self.trust is not None:
            weight = weight * (_LEAST + (1.0 - _LEAST) * self.trust.gain)
        weight = weight * ((1.0 - self.value_weight) + self.value_weight * self.value_weights)
        return weight / weight.mean().clamp_min(1e-12)

    # Voelcker et al. 2022, eq. 5, with one average slope in place of each sample's own
    @torch.no_grad()
    def weigh_by_value(self, slope: Tensor) -> None:
        """Learn the value_weights of each dimension of y from ``slope`` (D,), the mean of (dV/dx)^2 over states."""
        std = self._scale()[1]
        step = torch.where(std > 0, self._change_scale()[1] * self._unit() / std, 0.0) if self.by_change else 1.0
        power = slope * step**2 * self.diffused()
        self.value_weights.lerp_(power / power.mean().clamp_min(1e-30), 1.0 - _KEPT)

    def features(self, x: Tensor, valid: Tensor) -> Tensor:
        """The history as the denoiser sees it: x (B, history, D), ``valid`` (B, history) bool -> same shape.

        With ``target=change`` all but the newest row become changes in y's units, so that velocities are not lost
        in the difference of two nearly equal inputs; a change out of a padded row is 0. Readouts are 0.
        """
        x = self.visible(x * valid.unsqueeze(-1))
        if not self.by_change:
            return x
        std, spread = self._scale()[1], self._change_scale()[1]
        unit = torch.where(spread > 0, std / spread.clamp_min(1e-30), 0.0)
        moves = ((x[:, 1:] - x[:, :-1]) * unit * valid[:, :-1].unsqueeze(-1)).clamp(-self.reach, self.reach)
        return torch.cat([moves, x[:, -1:]], 1)
