"""The world model: what happens next, what it is worth, and what the agents see of it.

It owns the normalisers, the denoiser, the reward and continuation model, the decoder, their optimisers and the
random numbers of all of them. It knows nothing of policies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dima_isaac.errors import UsageError
from dima_isaac.nn.ema import ema_copy, ema_update
from dima_isaac.nn.optim import Optimiser
from dima_isaac.nn.surprise import Surprise
from dima_isaac.types import Decoder, Dims, Metrics, Window, restore_generator
from dima_isaac.world_model import karras, reveal
from dima_isaac.world_model.config import DecoderKind, OptimConfig, WorldModelConfig
from dima_isaac.world_model.decoder import LearnedDecoder
from dima_isaac.world_model.denoiser import Denoiser
from dima_isaac.world_model.reward import RewardModel
from dima_isaac.world_model.sampler import sample
from dima_isaac.world_model.target import Space


@dataclass
class Context:
    """What the model carries through a dream. Shapes never change."""

    state: Tensor  # (B, D) raw s now
    x: Tensor  # (B, history, D) x, oldest first, last = now; padded rows zero
    action: Tensor  # (B, history - 1, N, A) actions that led along the history, oldest first; padded rows zero
    valid: Tensor  # (B, history) bool, False where x is padding


class WorldModel(nn.Module):
    """P(s' | s, a^1 .. a^N), reward, continuation and observations of one Markov game."""

    sigmas: Tensor
    share: Tensor
    captured = ("track_window", "fit_dynamics", "fit_reward", "fit_decoder")
    """Methods that change nothing but tensors, in place: each may be replaced by a graph of itself (nn.captured)."""

    def __init__(self, cfg: WorldModelConfig, dims: Dims, observe: Decoder, last_action_index: Tensor | None = None,
                 output_only: Tensor | None = None) -> None:  # fmt: skip
        """``observe`` is the task's exact view; ``last_action_index`` (N, A) says where the state repeats the action
        just taken, ``output_only`` (D,) what physics does not go on from.

        Weights and the model's random stream come from torch's global generator, so seed that first.

        Raises:
            UsageError: a history of less than 2 rows, or a number of reverse steps that does not fit the agents.
        """
        super().__init__()
        if cfg.history < 2:
            raise UsageError(f"world_model.history={cfg.history} is too short; choose 2 or more.")
        self.cfg, self.dims, self.history = cfg, dims, cfg.history
        self.window = cfg.history + cfg.unroll
        self.space = Space(cfg, dims, last_action_index, output_only)
        self.denoiser = Denoiser(cfg.denoiser, dims, cfg.history, cfg.precision)
        self.average = ema_copy(self.denoiser) if cfg.denoiser.ema else None
        self.surprise = Surprise(dims.state, cfg.doubt_rows) if cfg.doubt else None
        share = torch.full((dims.state,), cfg.doubt)
        if self.space.input_mask is not None:  # readouts look as they do: a policy must not trust what a dream smooths
            share = torch.where(self.space.input_mask > 0, share, 1.0)
        self.register_buffer("share", share, persistent=False)
        self.reward = RewardModel(cfg.reward, dims, cfg.precision)
        self.reward_window: int = self.reward.window
        self.decoder = None if cfg.decoder.kind is DecoderKind.exact else LearnedDecoder(cfg.decoder, dims)
        self.steps = reveal.steps_for(dims.agents, cfg.denoiser.steps, cfg.denoiser.reveal)
        levels = karras.grid(self.steps, cfg.denoiser.sigma_min, cfg.denoiser.sigma_max, cfg.denoiser.rho)
        self.register_buffer("sigmas", levels, persistent=False)
        self._view = observe
        self._seed = int(torch.randint(2**62, ()))
        self._generator: torch.Generator | None = None
        self._optimisers: dict[str, Optimiser] | None = None

    @property
    def dreamer(self) -> Denoiser:
        """The denoiser that dreams: the ema_copy one, if there is one."""
        return self.denoiser if self.average is None else self.average

    @property
    def device(self) -> torch.device:
        return self.sigmas.device

    @property
    def learns_decoder(self) -> bool:
        """Whether ``update_decoder`` has anything to do."""
        return self.decoder is not None

    @property
    def generator(self) -> torch.Generator:
        """The model's random stream, on its device."""
        if self._generator is None or self._generator.device != self.device:
            self._generator = torch.Generator(self.device).manual_seed(self._seed)
        return self._generator

    # -- spaces -----------------------------------------------------------------------------------------------------

    def normalise(self, state: Tensor) -> Tensor:
        """s (..., D) -> x."""
        return self.space.x(state)

    def track(self, state: Tensor) -> None:
        """Learn the moments of ``state`` (..., D)."""
        self.space.state.update(state)

    def weigh_by_value(self, slope: Tensor) -> None:
        """Spend accuracy where the value has a slope; ``slope`` (D,) is the mean of (dV/dx)^2 over states."""
        if self.cfg.value_weight:
            self.space.weigh_by_value(slope)

    def _act(self, action: Tensor) -> Tensor:
        return action.clamp(-1.0, 1.0) if self.cfg.clip_actions else action

    # -- learning ---------------------------------------------------------------------------------------------------

    def update_dynamics(self, window: Window) -> Metrics:
        """One optimiser step of the denoiser on (B, ``self.window``) rows."""
        optimiser = self._optimiser("denoiser")
        done = optimiser.updates
        self.track_window(window)
        if self.space.linear is not None and done and done % self.cfg.linear_every == 0:
            self.space.linear.solve()
        optimiser.begin()
        metrics: Metrics = self.fit_dynamics(window)
        if self.average is not None:
            ema_update(self.average, self.denoiser, self.cfg.denoiser.ema, optimiser.updates)
        return metrics

    def update_reward(self, window: Window) -> Metrics:
        """One optimiser step of the reward and continuation model on (B, ``self.reward_window``) rows."""
        self._optimiser("reward").begin()
        return self.fit_reward(window)

    def update_decoder(self, state: Tensor) -> Metrics:
        """One optimiser step of the learned decoder on ``state`` (B, D); nothing to do with the exact view."""
        if self.decoder is None:
            return {}
        self._optimiser("decoder").begin()
        return self.fit_decoder(state)

    def track_window(self, window: Window) -> None:
        """The part of ``update_dynamics`` that learns scales and the linear regression's sums."""
        self.space.track(self._clipped(window), self.history)

    def fit_dynamics(self, window: Window) -> Metrics:
        """The part of ``update_dynamics`` that descends the denoiser's loss."""
        loss = self.denoiser.loss(self.space, self._clipped(window), self.cfg.unroll, self.generator)
        norm = self._optimiser("denoiser").step(loss)
        return {"world/denoise": loss.detach(), "world/grad_norm": norm}

    def fit_reward(self, window: Window) -> Metrics:
        """The part of ``update_reward`` that may be captured."""
        loss, metrics = self.reward.loss(self.space, self._clipped(window), self.generator)
        norm = self._optimiser("reward").step(loss, twice=self.cfg.reward.double_step)
        return {**metrics, "world/reward_grad_norm": norm}

    def fit_decoder(self, state: Tensor) -> Metrics:
        """The part of ``update_decoder`` that may be captured."""
        assert self.decoder is not None
        loss, metrics = self.decoder.loss(self.space.z(state), self._view(state))
        self._optimiser("decoder").step(loss)
        return metrics

    def _clipped(self, window: Window) -> Window:
        act = self._act(window.action)
        return Window(window.state, act, window.reward, window.terminal, window.first, window.valid)

    # -- dreaming ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def context(self, window: Window) -> Context:
        """The context at the end of (B, ``history``) replay rows."""
        mask = window.valid.unsqueeze(-1)
        x = self.normalise(window.state) * mask
        action = self._act(window.action[:, :-1]) * mask[:, :-1].unsqueeze(-1)
        return Context(window.state[:, -1], x, action, window.valid)

    @torch.no_grad()
    def observe(self, state: Tensor) -> Tensor:
        """Raw s (B, D) -> what each agent sees (B, N, O)."""
        return self._view(state) if self.decoder is None else self.decoder(self.space.z(state))

    @torch.no_grad()
    def step(
        self, context: Context, action: Tensor, generator: torch.Generator | None = None, doubt: bool = True
    ) -> Context:
        """Dream one step under ``action`` (B, N, A), in K denoiser calls; a prediction leaves ``doubt`` out."""
        action = self._act(action)
        actions = torch.cat([context.action, action.unsqueeze(1)], 1)
        base = self.space.base(context.x[:, -1], actions)
        generator = generator or self.generator
        y = self.space.shrunk(self._sample(context, actions, self.cfg.denoiser.temperature, generator))
        if self.surprise is not None and doubt:
            y = y + self.share * self.surprise.draw(y.shape[0], generator)
        state = self.space.advance(context.state, y, base, action)
        x = torch.cat([context.x[:, 1:], self.normalise(state).unsqueeze(1)], 1)
        valid = torch.cat([context.valid[:, 1:], torch.ones_like(context.valid[:, :1])], 1)
        return Context(state, x, actions[:, 1:], valid)

    # DIMA eq. 6
    def _sample(self, context: Context, actions: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Draw y (B, D) for ``actions`` (B, history, N, A), the last of them the current one."""
        cfg = self.cfg.denoiser
        batch, agents = actions.shape[0], actions.shape[2]
        order = reveal.draw_order(cfg.order, batch, agents, generator)
        features = self.space.features(context.x, context.valid)
        shown = self.dreamer.encode(features, actions, reveal.stages(cfg.reveal, order))
        conditions = [shown[reveal.stage_of(k, self.steps, len(shown))] for k in range(self.steps)]
        free = self.space.diffused()

        def denoise(y: Tensor, sigma: Tensor, condition: Any) -> Tensor:
            return self.dreamer(y, sigma, condition, free)

        noise = temperature * torch.randn(context.state.shape, device=self.device, generator=generator)
        return sample(denoise, noise, self.sigmas, conditions)

    @torch.no_grad()
    def update_held_out(self, window: Window) -> Metrics:
        """Learn from ``window`` (B, ``history`` + 1), rows that no update has seen, how far dreams may believe D and
        by how much they err.

        ``world/explained`` is the share of y's power that the shrunk prediction accounts for; above 0 the
        denoiser improves on the linear model (``target=residual``) or on the mean change.
        """
        if self.space.trust is None and self.surprise is None:
            return {}
        h = self.history
        past = Window(**{name: column[:, :h] for name, column in vars(window).items()})
        context, actions = self.context(past), self._act(window.action[:, :h])
        truth = self.space.y(context.state, window.state[:, h], self.space.base(context.x[:, -1], actions))
        guess = self._sample(context, actions, 0.0, self.generator)
        counted = window.valid[:, h] & ~window.first[:, h] & window.valid[:, h - 1]
        miss = (truth - self.space.shrunk(guess)) * counted.unsqueeze(1) * self.space.open()
        if self.surprise is not None:
            self.surprise.update(miss)
        predicted = self.space.diffused()
        keep = counted.unsqueeze(1) * predicted
        left, power = (miss * keep).square().sum(), (truth * keep).square().sum()
        metrics = {"world/explained": 1.0 - left / power.clamp_min(1e-12)}
        if self.space.trust is not None:
            self.space.trust.update(guess, truth, counted)
            metrics["world/trust"] = (self.space.trust.gain * predicted).sum() / predicted.sum().clamp_min(1.0)
        return metrics

    @torch.no_grad()
    def predict_reward(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """A finished dream, raw s (B, H + 1, D) and actions (B, H, N, A) -> reward (B, H), P(goes on) (B, H)."""
        return self.reward.predict(self.space, states, self._act(actions))

    # -- continuing -------------------------------------------------------------------------------------------------

    def _optimiser(self, name: str) -> Optimiser:
        # made at first use: by then the parameters are on their device
        if self._optimisers is None:
            made = {"denoiser": self._adam(self.denoiser, self.cfg.denoiser.optim)}
            made["reward"] = self._adam(self.reward, self.cfg.reward.optim)
            if self.decoder is not None:
                made["decoder"] = self._adam(self.decoder, self.cfg.decoder.optim)
            self._optimisers = made
        return self._optimisers[name]

    @staticmethod
    def _adam(module: nn.Module, cfg: OptimConfig) -> Optimiser:
        return Optimiser(module, cfg.lr, cfg.weight_decay, cfg.decay_all, cfg.warmup, cfg.clip)

    def optim_state(self) -> dict:
        """Optimisers and random stream: what ``state_dict`` lacks to continue bit for bit."""
        self._optimiser("denoiser")
        assert self._optimisers is not None
        state: dict = {name: optimiser.state_dict() for name, optimiser in self._optimisers.items()}
        return {**state, "generator": self.generator.get_state(), "seed": self._seed}

    def load_optim_state(self, state: dict) -> None:
        """Continue from ``optim_state``. On another kind of device the random stream starts anew."""
        self._optimiser("denoiser")
        assert self._optimisers is not None
        for name, optimiser in self._optimisers.items():
            optimiser.load_state_dict(state[name])
        self._seed, self._generator = int(state["seed"]), None
        restore_generator(self.generator, state["generator"])
