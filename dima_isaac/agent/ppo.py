"""PPO for a team: a shared actor and a centralised critic, improved on dreamt rollouts (MAPPO, Yu et al. 2022)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dima_isaac import ranks
from dima_isaac.agent.actor import Actor
from dima_isaac.agent.config import AgentConfig
from dima_isaac.agent.critic import Critic
from dima_isaac.agent.learner import DreamLearner
from dima_isaac.agent.returns import lambda_returns, survival
from dima_isaac.nn.optim import optimizer_step
from dima_isaac.types import Game, Metrics, Rollout, Step

GRAD_CLIP = 10.0  # of each network's gradient norm
HUBER = 10.0  # where the value loss becomes linear, in normalised units
ADVANTAGE_EPS = 1e-4
RATE_STEP = 0.1  # of the actor's learning rate per rollout, as a share, at most, ..
RATE_RANGE = 4.0  # .. and over or under ``cfg.ppo.lr``


class PPO(DreamLearner):
    """The ``Learner`` of ``agent.learner=ppo``."""

    actor: Actor
    captured = ("update",)

    def __init__(
        self, cfg: AgentConfig, game: Game, device: torch.device, *, clip_actions: bool, bf16: bool, seed: int
    ) -> None:
        """See ``build_learner``."""
        super().__init__()
        dims, action_mask = game.spec.dims, game.spec.action_mask
        self.cfg, self._clip_actions = cfg, clip_actions
        self.actor = Actor(cfg.actor, dims, action_mask, published=cfg.ppo.published, bf16=bf16)
        self.critic = Critic(cfg.critic, dims, published=cfg.ppo.published, bf16=bf16)
        self.to(device)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.optimisers = {
            name: torch.optim.Adam(net.parameters(), lr=cfg.ppo.lr, eps=1e-5, fused=True)
            for name, net in (("actor", self.actor), ("critic", self.critic))
        }
        self._move_rate()

    @torch.no_grad()
    def act(self, obs: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return self.actor.act(obs, generator or self.generator)

    @torch.no_grad()
    def mode(self, obs: Tensor) -> Tensor:
        action = self.actor.mode(obs)
        return action.clamp(-1.0, 1.0) if self._clip_actions else action

    def track(self, step: Step) -> None:
        self.actor.inputs.track(step.obs)

    def value_gradient(self, state: Tensor, last_action: Tensor) -> Tensor:
        with torch.enable_grad():
            x = state.detach().requires_grad_(True)
            # a view, since counters of operations put hooks on what a module is given, and not on leaves
            (grad,) = torch.autograd.grad(self.critic(x.view_as(x), last_action).sum(), x)
        return grad.square().mean(0)

    def update(self, rollout: Rollout) -> Metrics:
        """PPO epochs on one rollout.

        One scalar advantage per joint step goes to every agent; steps count by the probability that the
        episode still runs there (``weigh_by_survival``).
        """
        gamma, cfg = self.cfg.gamma, self.cfg.ppo
        with torch.no_grad():
            value = self.critic(rollout.x, rollout.last_action)  # (B, H + 1), normalised units
            raw = self.critic.units.denormalise(value)
            target = lambda_returns(rollout.reward, raw[:, 1:], rollout.cont, gamma, cfg.lam, gamma_twice=cfg.published)
            weight = survival(rollout.cont) if cfg.weigh_by_survival else torch.ones_like(target)
            advantage = _standardise(target - raw[:, :-1], weight, ADVANTAGE_EPS)
        rows = [  # (B * H, ...)
            column.flatten(0, 1)
            for column in (rollout.obs, rollout.action, rollout.logp, rollout.x[:, :-1],
                           rollout.last_action[:, :-1], value[:, :-1], target, advantage, weight)
        ]  # fmt: skip
        count = rows[0].shape[0]
        size = count // cfg.minibatches
        totals: dict[str, Tensor] = {}
        for _ in range(cfg.epochs):
            order = None
            if cfg.minibatches > 1:
                order = torch.randperm(count, device=target.device, generator=self.generator)
            for m in range(cfg.minibatches):
                part = rows if order is None else [column[order[m * size : (m + 1) * size]] for column in rows]
                for name, metric in self._minibatch(part).items():
                    totals[name] = totals.get(name, 0.0) + metric
        out = {name: total / (cfg.epochs * cfg.minibatches) for name, total in totals.items()}
        if cfg.desired_kl:
            kl = out["agent/kl"] + 0.0 * out["agent/policy"]  # not finite where the loss was not, and no step was taken
            out["agent/lr"] = self._follow_kl(ranks.mean(kl))
        out["agent/dream_reward"] = _mean(rollout.reward, weight)
        out["agent/dream_return"] = target[:, 0].mean()
        out["agent/value"] = raw[:, 0].mean()
        out["agent/cont"] = rollout.cont.mean()
        return out

    def load_optim_state(self, state: dict[str, Any]) -> None:
        super().load_optim_state(state)
        self._move_rate()

    def _move_rate(self) -> None:
        """Make an actor's learning rate that changes a tensor on the device: no synchronisation, and graphs see it."""
        if self.cfg.ppo.desired_kl:
            group = self.optimisers["actor"].param_groups[0]
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=self.generator.device)

    def _follow_kl(self, kl: Tensor) -> Tensor:
        """Move the actor's learning rate towards the one whose rollout moves the policies by ``desired_kl``."""
        rate, lr = self.optimisers["actor"].param_groups[0]["lr"], self.cfg.ppo.lr
        # a divergence grows with the square of the rate
        factor = (self.cfg.ppo.desired_kl / kl).sqrt().clamp(1 - RATE_STEP, 1 + RATE_STEP)
        rate.mul_(torch.where(kl.isfinite(), factor, 1.0)).clamp_(lr / RATE_RANGE, lr * RATE_RANGE)
        return rate.clone()

    def _minibatch(self, rows: list[Tensor]) -> Metrics:
        """One step of the actor and one of the critic on M rows."""
        obs, action, old_logp, state, last_action, old_value, target, advantage, weight = rows
        cfg = self.cfg.ppo
        logp, entropy = self.actor.evaluate(obs, action)  # (M, N)
        log_ratio = logp - old_logp
        ratio = log_ratio.exp()
        surrogate = torch.minimum(
            ratio * advantage.unsqueeze(1), ratio.clamp(1 - cfg.clip, 1 + cfg.clip) * advantage.unsqueeze(1)
        ).mean(1)
        kl = _mean((ratio - 1 - log_ratio).mean(1), weight).detach()
        policy_loss = -_mean(surrogate, weight)
        bonus = _mean(entropy.mean(1), weight)
        loss = policy_loss - cfg.entropy * bonus
        actor_grad = optimizer_step(self.optimisers["actor"], self.actor.parameters(), loss, GRAD_CLIP)

        self.critic.units.update(target, weight)
        wanted = self.critic.units.normalise(target)
        value = self.critic(state, last_action)
        loss = F.huber_loss(value, wanted, reduction="none", delta=HUBER)
        if cfg.published:
            near = old_value + (value - old_value).clamp(-cfg.clip, cfg.clip)
            loss = torch.maximum(loss, F.huber_loss(near, wanted, reduction="none", delta=HUBER))
        value_loss = _mean(loss, weight)
        critic_grad = optimizer_step(self.optimisers["critic"], self.critic.parameters(), value_loss, GRAD_CLIP)
        return {
            "agent/policy": policy_loss.detach(),
            "agent/value_loss": value_loss.detach(),
            "agent/entropy": bonus.detach(),
            "agent/kl": kl,
            "agent/clipped": ((ratio - 1).abs() > cfg.clip).float().mean(),
            "agent/grad_norm": actor_grad,
            "agent/critic_grad_norm": critic_grad,
        }


def _mean(value: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean; with several ranks it is the mean of theirs that is the weighted one."""
    return (value * weight).sum() / ranks.mean(weight.sum()).clamp_min(1e-8)


def _standardise(value: Tensor, weight: Tensor, eps: float) -> Tensor:
    centred = value - ranks.mean(_mean(value, weight))
    return centred / (ranks.mean(_mean(centred**2, weight)).sqrt() + eps)
