"""SAC for a team: a shared decentralised actor and centralised critics, learnt from replay (Haarnoja et al. 2018).

The critics are categorical and batch-normalised, which is what lets them learn from few steps (Palenicek et al. 2026),
returns are of n steps, and the entropy's weight is tuned to a target. Evaluations play averaged weights of the actor.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from dima_isaac import ranks
from dima_isaac.agent.categorical import LIMIT, CategoricalCritics
from dima_isaac.agent.config import AgentConfig
from dima_isaac.agent.learner import ReplayLearner
from dima_isaac.agent.returns import ReturnScale
from dima_isaac.agent.squashed import SquashedActor
from dima_isaac.nn.ema import ema_update
from dima_isaac.nn.optim import optimizer_step
from dima_isaac.types import Game, Metrics, Step, Transitions

CRITIC_STEPS = 2  # per step of the actor (TD3's delay)
TARGET_STEP = 0.01  # of the target critics towards the critics, per critic step
ACTOR_STEP = 0.01  # of ``actor`` towards ``trained``, per step of that; on hands within 1,600 environment steps
WEIGHT_DECAY = 0.01
ENTROPY_WEIGHT = 0.001  # at the start; with 0.01 the hand-over spent 100,000 steps in bringing the entropy down
ENTROPY_LR = 1e-3
GRAD_CLIP = 10.0


class SAC(ReplayLearner):
    """The ``Learner`` of ``agent.learner=sac``: it improves on ``Transitions`` of any origin."""

    actor: SquashedActor  # averaged: it is evaluated, played and exported; ``trained`` explores and learns
    used: Tensor
    captured = ("update",)

    def __init__(
        self, cfg: AgentConfig, game: Game, device: torch.device, *, clip_actions: bool, bf16: bool, seed: int
    ) -> None:
        """See ``build_learner``; actions are in (-1, 1) with or without ``clip_actions``."""
        super().__init__()
        self.cfg, self._observe, self._bf16 = cfg, game.observe, bf16
        dims, mask = game.spec.dims, game.spec.action_mask
        self.trained = SquashedActor(cfg.actor, dims)
        self.actor = copy.deepcopy(self.trained).requires_grad_(False)
        self.actor.inputs = self.trained.inputs  # the same statistics
        self.register_load_state_dict_pre_hook(_add_trained)
        self.critics = CategoricalCritics(dims, cfg.critic.hidden)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.target_critics.moments = self.critics.moments
        self.log_weight = nn.Parameter(torch.tensor(math.log(ENTROPY_WEIGHT)))
        self.scale = ReturnScale(cfg.gamma, LIMIT)
        used = torch.ones(dims.agents, dims.action) if mask is None else mask.float()
        self.register_buffer("used", used, persistent=False)
        self.rows_per_update = CRITIC_STEPS * cfg.sac.batch
        self.updates_per_step = cfg.sac.critic_steps_per_step / CRITIC_STEPS
        self.to(device)
        self.generator = torch.Generator(device).manual_seed(seed)

        def adamw(net: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.AdamW(net.parameters(), lr=cfg.sac.lr, weight_decay=WEIGHT_DECAY, fused=True)

        entropy = torch.optim.Adam([self.log_weight], lr=ENTROPY_LR, fused=True)
        self.optimisers = {"actor": adamw(self.trained), "critics": adamw(self.critics), "entropy": entropy}

    @torch.no_grad()
    def act(self, obs: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        action, logp = self.trained.act(obs, generator or self.generator)
        return action, (logp * self.used).sum(-1)

    @torch.no_grad()
    def mode(self, obs: Tensor) -> Tensor:
        return self.actor.mode(obs)

    def track(self, step: Step) -> None:
        self.trained.inputs.track(step.obs)
        self.critics.moments.update(step.state)
        self.scale.update(step.reward, step.first)

    def update(self, batch: Transitions) -> Metrics:
        """One step of the critics on each of ``CRITIC_STEPS`` parts of ``batch``, then one of actor and entropy."""
        parts = list(zip(*(column.chunk(CRITIC_STEPS) for column in vars(batch).values()), strict=True))
        for part in parts:
            metrics = self._update_critics(Transitions(*part))
        return {**metrics, **self._update_actor(Transitions(*parts[-1]))}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.used.device.type, torch.bfloat16, enabled=self._bf16)

    def _update_critics(self, batch: Transitions) -> Metrics:
        with torch.no_grad(), self._autocast():
            action, logp = self.trained.act(self._observe(batch.next_state), self.generator)
            bonus = -self.log_weight.exp() * (logp * self.used).sum((-1, -2))
        states, actions = torch.cat([batch.state, batch.next_state]), torch.cat([batch.action, action])
        with self._autocast():
            logits = self.critics(states, actions).chunk(2, 1)[0]
        with torch.no_grad():
            with self._autocast():
                after = self.target_critics(states, actions).chunk(2, 1)[1]
            reward = batch.reward / self.scale() + batch.discount * bonus
            target = self.critics.target(after, reward, batch.discount)
        loss = _mean(-(target * logits.log_softmax(-1)).sum(-1), batch.counted).sum()
        norm = optimizer_step(self.optimisers["critics"], self.critics.parameters(), loss, GRAD_CLIP)
        with torch.no_grad():
            ranks.average_(buffer for buffer in self.critics.nets.buffers() if buffer.is_floating_point())
            ema_update(self.target_critics, self.critics, TARGET_STEP)
            for old, new in zip(self.target_critics.buffers(), self.critics.buffers(), strict=True):
                old.copy_(new)
        return {"agent/value_loss": loss.detach(), "agent/critic_grad_norm": norm}

    def _update_actor(self, batch: Transitions) -> Metrics:
        self.critics.eval().requires_grad_(False)
        with self._autocast():
            action, logp = self.trained.act(self._observe(batch.state), self.generator)
            value = self.critics.mean(self.critics(batch.state, action)).amin(0)
        self.critics.train().requires_grad_(True)
        entropy = -(logp * self.used).sum((-1, -2))
        weight = self.log_weight.exp()
        loss = -_mean(value + weight.detach() * entropy, batch.counted)
        norm = optimizer_step(self.optimisers["actor"], self.trained.parameters(), loss, GRAD_CLIP)
        ema_update(self.actor, self.trained, ACTOR_STEP)
        mean_entropy = _mean(entropy, batch.counted).detach()
        wanted = self.cfg.sac.target_entropy * self.used.sum()
        optimizer_step(self.optimisers["entropy"], [self.log_weight], weight * (mean_entropy - wanted), GRAD_CLIP)
        return {
            "agent/policy": loss.detach(),
            "agent/entropy": mean_entropy / self.used.shape[0],
            "agent/entropy_weight": weight.detach(),
            "agent/value": _mean(value, batch.counted).detach() * self.scale(),
            "agent/grad_norm": norm,
        }

    def value_gradient(self, state: Tensor) -> Tensor:
        self.critics.eval()
        with torch.enable_grad():
            leaf = state.detach().requires_grad_(True)
            s = leaf.view_as(leaf)  # counting operations works with a view only
            value = self.critics.mean(self.critics(s, self.trained.mode(self._observe(s)))).mean(0)
            (gradient,) = torch.autograd.grad(value.sum(), s)
        self.critics.train()
        return gradient.square().mean(0)

    def load_policy(self, weights: dict[str, Tensor]) -> None:
        super().load_policy(weights)
        self.trained.load_state_dict(weights)

    def optim_state(self) -> dict[str, Any]:
        return {**super().optim_state(), "running": self.scale.running}

    def load_optim_state(self, state: dict[str, Any]) -> None:
        super().load_optim_state(state)
        self.scale.running = state["running"].to(self.used.device)


def _add_trained(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """In ``state`` of a run from before weights were averaged, what acts is what was trained."""
    actor, trained = prefix + "actor.", prefix + "trained."
    if not any(key.startswith(trained) for key in state):
        state.update({trained + key[len(actor) :]: value for key, value in [*state.items()] if key.startswith(actor)})


def _mean(value: Tensor, counted: Tensor) -> Tensor:
    """Mean over the last dimension of ``value`` (..., B), of the rows that ``counted`` (B,).

    With several ranks it is the mean of theirs that is the mean over all rows.
    """
    weight = counted.to(value.dtype)
    return (value * weight).sum(-1) / ranks.mean(weight.sum()).clamp_min(1.0)
