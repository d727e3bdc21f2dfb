"""The world model: the next state, its reward and continuation, and what the agents observe of it.

It owns the normalisers, the denoiser, the reward and continuation model, the decoder, their optimisers and the
random numbers of all of them. It knows nothing of policies.

A training window of history 3 with unroll 3, at pass j = 0 (one pass has four rows):

    row            0      1      2      3      4      5
    state        hist   hist   hist  TARGET    .      .
    action       all    all  visible   -       .      .      visible = those of visible agents only

Pass j moves one row to the right and finds the model's own predictions in place of the states it has passed.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dima_isaac import ranks
from dima_isaac.nn.ema import ema_step, ema_update
from dima_isaac.nn.optim import Optimiser, Trainable
from dima_isaac.types import Game, Metrics, Window
from dima_isaac.world_model import karras, reveal
from dima_isaac.world_model.config import DecoderKind, OptimConfig, WorldModelConfig
from dima_isaac.world_model.denoiser import Denoiser
from dima_isaac.world_model.held_out import HeldOut
from dima_isaac.world_model.loss_weights import LossWeights
from dima_isaac.world_model.paper.decoder import VqDecoder
from dima_isaac.world_model.reward import RewardModel
from dima_isaac.world_model.sampler import sample
from dima_isaac.world_model.target import build_target


@dataclass
class Context:
    """What the model carries from one imagined step to the next. Shapes never change."""

    state: Tensor  # (B, D) raw s now
    x: Tensor  # (B, history, D) x, oldest first, last = now; padded rows zero
    action: Tensor  # (B, history - 1, N, A) actions that led along the history, oldest first; padded rows zero
    valid: Tensor  # (B, history) bool, False where x is padding


class WorldModel(Trainable):
    """P(s' | s, a^1 .. a^N), reward, continuation and observations of one Markov game."""

    sigmas: Tensor
    captured = ("track_window", "fit_dynamics", "fit_reward", "fit_decoder")
    """Methods that change nothing but tensors, in place: each may be replaced by a graph of itself (nn.captured)."""

    def __init__(self, cfg: WorldModelConfig, game: Game, device: torch.device | str = "cpu") -> None:
        """A model of ``game``, a task, on ``device``.

        Weights and the model's random stream come from torch's global generator, so seed that first.
        """
        super().__init__()
        spec = game.spec
        self.cfg, self.dims, self.history = cfg, spec.dims, cfg.history
        self.window = cfg.history + cfg.unroll
        self.target = build_target(cfg, spec)
        self.denoiser = Denoiser(cfg, spec.dims)
        # it keeps requires_grad, because autocast caches casts to bfloat16 for such weights only
        self.ema_denoiser = copy.deepcopy(self.denoiser) if cfg.denoiser.ema else None
        self.loss_weights = LossWeights(spec.dims.state, cfg.value_weight)
        # a policy must not rely on what the regression smooths: output-only dimensions err by whole errors
        scale = torch.where(self.target.input_mask > 0, cfg.error_scale, 1.0)
        self.held_out = HeldOut(scale) if cfg.error_scale else None
        self.reward = RewardModel(cfg.reward, spec.dims, cfg.precision)
        self.reward_window: int = self.reward.window
        self.longest: float = self.reward.longest  # steps of a trajectory whose reward can be predicted
        self.decoder = VqDecoder(spec.dims) if cfg.decoder is DecoderKind.vq else None
        self.steps = reveal.steps_for(spec.dims.agents, cfg.denoiser.steps, cfg.denoiser.reveal)
        self.register_buffer("sigmas", karras.grid(self.steps), persistent=False)
        self._observe = game.observe
        self._seed = int(torch.randint(2**62, ()))
        self.to(device)
        self.generator = torch.Generator(self.device).manual_seed(self._seed + ranks.rank())
        self.optimisers = {
            "denoiser": _optimiser(self.denoiser, cfg.denoiser.optim),
            "reward": _optimiser(self.reward.net, cfg.reward.optim, self.reward.sparse),
        }
        if self.decoder is not None:
            self.optimisers["decoder"] = self.decoder.optimiser()

    @property
    def sampling_denoiser(self) -> Denoiser:
        """The denoiser that imagination uses: the one with averaged weights, if there is one."""
        return self.denoiser if self.ema_denoiser is None else self.ema_denoiser

    @property
    def device(self) -> torch.device:
        return self.sigmas.device

    # -- learning ---------------------------------------------------------------------------------------------------

    def track(self, state: Tensor) -> None:
        """Update the running moments with ``state`` (..., D)."""
        self.target.state.update(state)

    def _as_taken(self, action: Tensor) -> Tensor:
        """Actions as the environment takes them."""
        return action.clamp(-1.0, 1.0) if self.cfg.clip_actions else action

    def update_dynamics(self, window: Window) -> Metrics:
        """One optimiser step of the denoiser on (B, ``self.window``) rows."""
        optimiser = self.optimisers["denoiser"]
        self.track_window(window)
        self.target.refit(optimiser.updates)
        optimiser.begin()
        metrics: Metrics = self.fit_dynamics(window)
        if self.ema_denoiser is not None:
            ema_update(self.ema_denoiser, self.denoiser, ema_step(self.cfg.denoiser.ema, optimiser.updates))
        return metrics

    def update_reward(self, window: Window) -> Metrics:
        """One optimiser step of the reward and continuation model on (B, ``self.reward_window``) rows."""
        optimiser = self.optimisers["reward"]
        optimiser.begin()
        metrics: Metrics = self.fit_reward(window)
        if self.reward.average is not None:
            ema_update(self.reward.average, self.reward.net, ema_step(self.cfg.reward.ema, optimiser.updates))
        return metrics

    def update_decoder(self, state: Tensor) -> Metrics:
        """One optimiser step of the learned decoder on ``state`` (B, D)."""
        self.optimisers["decoder"].begin()
        return self.fit_decoder(state)

    def weigh_by_value(self, squared_gradient: Tensor) -> None:
        """Update the denoiser's loss weights with the mean of (dV/dx)^2 over states, (D,)."""
        if self.cfg.value_weight:
            squared_gradient = ranks.mean(squared_gradient)
            self.loss_weights.update(squared_gradient * self.target.dx_dy() ** 2 * self.target.denoised())

    def track_window(self, window: Window) -> None:
        """The part of ``update_dynamics`` that updates the target's scales and its regression's sums."""
        self.target.track(window)

    def fit_dynamics(self, window: Window) -> Metrics:
        """The part of ``update_dynamics`` that makes the optimiser step of the denoiser."""
        loss = self._dynamics_loss(window)
        norm = self.optimisers["denoiser"].step(loss)
        return {"world/denoise": loss.detach(), "world/grad_norm": norm}

    def fit_reward(self, window: Window) -> Metrics:
        """The part of ``update_reward`` that may be captured."""
        loss, metrics = self.reward.loss(self.target, window, self.generator)
        norm = self.optimisers["reward"].step(loss, twice=self.cfg.reward.double_step)
        return {**metrics, "world/reward_grad_norm": norm}

    def fit_decoder(self, state: Tensor) -> Metrics:
        """The part of ``update_decoder`` that may be captured."""
        assert self.decoder is not None
        loss, metrics = self.decoder.loss(self.target.z(state), self._observe(state))
        self.optimisers["decoder"].step(loss)
        return metrics

    # DIMA eq. 9
    def _dynamics_loss(self, window: Window) -> Tensor:
        """The denoiser's loss, averaged over samples and ``unroll`` passes.

        Rows that are padding are not targets, nor those that no action led to unless ``target.first_rows``.
        """
        h, target = self.history, self.target
        mask = target.denoised()
        weights = self.loss_weights(mask, None if self.held_out is None else self.held_out.gain)
        rows = list(window.state.unbind(1))
        losses = []
        for j in range(self.cfg.unroll):
            past, truth = torch.stack(rows[j : j + h], 1), window.state[:, j + h]
            counted = window.valid[:, j + h] if target.first_rows else window.valid[:, j + h - 1]
            actions, x = window.action[:, j : j + h], target.x(past)
            linear = target.linear(x[:, -1], actions)
            y = torch.where(counted.unsqueeze(1), target.encode(past[:, -1], truth, linear), 0.0)
            features = target.features(x, window.valid[:, j : j + h])
            error, clean = self.denoiser.loss(y, features, actions, mask, weights, self.generator)
            losses.append((error * counted).sum() / ranks.mean(counted.sum()).clamp_min(1))
            if j + 1 < self.cfg.unroll:  # the next pass finds the prediction
                after = target.advance(past[:, -1], self._shrink(clean.detach()), linear, actions[:, -1])
                rows[j + h] = torch.where(counted.unsqueeze(1), after, truth)
        return torch.stack(losses).mean()

    def _shrink(self, y: Tensor) -> Tensor:
        """A prediction y (B, D) times the held-out shrinkage factors; 0 where the denoiser predicts nothing."""
        y = y * self.target.input_mask
        return y if self.held_out is None else self.held_out.shrink(y)

    # -- imagination ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def context(self, window: Window) -> Context:
        """The context at the end of (B, ``history``) replay rows."""
        mask = window.valid.unsqueeze(-1)
        x = self.target.x(window.state) * mask
        action = window.action[:, :-1] * mask[:, :-1].unsqueeze(-1)
        return Context(window.state[:, -1], x, action, window.valid)

    @torch.no_grad()
    def observe(self, state: Tensor) -> Tensor:
        """Raw s (B, D) -> what each agent observes (B, N, O)."""
        return self._observe(state) if self.decoder is None else self.decoder(self.target.z(state))

    @torch.no_grad()
    def step(
        self, context: Context, action: Tensor, generator: torch.Generator | None = None, errors: bool = True
    ) -> Context:
        """Imagine one step under ``action`` (B, N, A), in K denoiser calls.

        ``errors=False`` leaves held-out errors out: a prediction, not a step to learn a policy from.
        """
        action = self._as_taken(action)
        actions = torch.cat([context.action, action.unsqueeze(1)], 1)
        linear = self.target.linear(context.x[:, -1], actions)
        generator = generator or self.generator
        y = self._shrink(self._sample(context, actions, 1.0, generator))
        if self.held_out is not None and errors:
            y = y + self.held_out.draw(y.shape[0], generator)
        state = self.target.advance(context.state, y, linear, action)
        x = torch.cat([context.x[:, 1:], self.target.x(state).unsqueeze(1)], 1)
        valid = torch.cat([context.valid[:, 1:], torch.ones_like(context.valid[:, :1])], 1)
        return Context(state, x, actions[:, 1:], valid)

    # DIMA eq. 6
    def _sample(self, context: Context, actions: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Draw y (B, D) for ``actions`` (B, history, N, A), the last of them the current one.

        ``temperature`` multiplies the noise that the reverse process starts from: 0 follows its most likely path.
        """
        cfg, denoiser = self.cfg.denoiser, self.sampling_denoiser
        order = reveal.draw_order(cfg.order, actions.shape[0], actions.shape[2], generator)
        features = self.target.features(context.x, context.valid)
        stages = denoiser.encode(features, actions, reveal.stages(cfg.reveal, order))
        conditions = [stages[reveal.stage_of(k, self.steps, len(stages))] for k in range(self.steps)]
        mask = self.target.denoised()

        def denoise(y: Tensor, sigma: Tensor, condition: Any) -> Tensor:
            return denoiser(y, sigma, condition, mask)

        noise = torch.zeros_like(context.state)
        if denoiser.diffusion:
            noise = temperature * torch.randn(context.state.shape, device=self.device, generator=generator)
        return sample(denoise, noise, self.sigmas, conditions)

    @torch.no_grad()
    def predict_reward(
        self, states: Tensor, actions: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """An imagined trajectory, raw s (B, H + 1, D) and actions (B, H, N, A) -> reward, P(continuation), (B, H)."""
        return self.reward.predict(self.target, states, self._as_taken(actions), generator or self.generator)

    # -- held-out error ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def update_held_out(self, window: Window) -> Metrics:
        """Learn from ``window`` (B, ``history`` + 1), rows that no update has seen, how far predictions hold."""
        if self.held_out is None:
            return {}
        h, target = self.history, self.target
        context, actions = self.context(window.rows(0, h)), window.action[:, :h]
        outcome = target.encode(context.state, window.state[:, h], target.linear(context.x[:, -1], actions))
        prediction = self._sample(context, actions, 0.0, self.generator) * target.input_mask
        return self.held_out.update(prediction, outcome, window.valid[:, h - 1], target.uncertain(), target.denoised())

    # -- continuing -------------------------------------------------------------------------------------------------

    def optim_state(self) -> dict[str, Any]:
        return {**super().optim_state(), "seed": self._seed}

    def load_optim_state(self, state: dict[str, Any]) -> None:
        self._seed = int(state["seed"])
        self.generator.manual_seed(self._seed + ranks.rank())
        super().load_optim_state(state)


def _optimiser(module: nn.Module, cfg: OptimConfig, sparse: tuple[nn.Linear, float] | None = None) -> Optimiser:
    return Optimiser(module, cfg.lr, cfg.weight_decay, cfg.clip, cfg.warmup, sparse=sparse)
