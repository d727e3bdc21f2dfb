"""The team: a shared actor and a centralised critic, improved by PPO on dreamt rollouts (MAPPO, Yu et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dima_isaac.agent.actor import Actor
from dima_isaac.agent.config import AgentConfig
from dima_isaac.agent.critic import Critic
from dima_isaac.agent.returns import lambda_returns, survival
from dima_isaac.nn.optim import optimizer_step
from dima_isaac.types import Dims, Metrics, Rollout, restore_generator


class ActorCritic(nn.Module):
    """``act(obs)`` anywhere; ``update(rollout)`` on experience of any origin."""

    def __init__(
        self, cfg: AgentConfig, dims: Dims, device: torch.device, action_mask: Tensor | None = None, seed: int = 0
    ):
        super().__init__()
        self.cfg = cfg
        self.actor = Actor(cfg.actor, dims, action_mask)
        self.critic = Critic(cfg.critic, dims)
        self.to(device)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.actor_optim = torch.optim.Adam(self.actor.parameters(), lr=cfg.actor.lr, eps=1e-5, fused=True)
        self.critic_optim = torch.optim.Adam(self.critic.parameters(), lr=cfg.critic.lr, eps=1e-5, fused=True)

    @torch.no_grad()
    def act(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Draw actions (..., N, A) as the environment takes them, and the log-probability (..., N) of the draw."""
        return self.actor.act(obs, self.generator)

    @torch.no_grad()
    def mode(self, obs: Tensor) -> Tensor:
        """The deterministic team action (..., N, A), clipped as the environment would."""
        return self.clip(self.actor.mode(obs))

    def track(self, obs: Tensor) -> None:
        """Update the actor's observation statistics with real observations (..., N, O)."""
        self.actor.track(obs)

    def clip(self, action: Tensor) -> Tensor:
        """What the environment and the world model receive for a drawn ``action``."""
        return action.clamp(-1.0, 1.0) if self.cfg.actor.clip_action else action

    def value_gradient(self, state: Tensor, last_action: Tensor) -> Tensor:
        """Mean of (dV/dx)^2 over states x (B, D) and the joint actions (B, N, A) that led to them: (D,)."""
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
        cfg = self.cfg
        with torch.no_grad():
            value = self.critic(rollout.state, rollout.last_action)  # (B, H + 1), normalised units
            raw = self.critic.units.denormalise(value)
            target = lambda_returns(rollout.reward, raw[:, 1:], rollout.cont, cfg.gamma, cfg.lam, cfg.gamma_twice)
            weight = survival(rollout.cont) if cfg.weigh_by_survival else torch.ones_like(target)
            advantage = _standardise(target - raw[:, :-1], weight, cfg.advantage_eps)
        rows = [  # (B * H, ...)
            column.flatten(0, 1)
            for column in (rollout.obs, rollout.action, rollout.logp, rollout.state[:, :-1],
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
        steps = cfg.epochs * cfg.minibatches
        out = {name: total / steps for name, total in totals.items()}
        out["agent/dream_reward"] = _mean(rollout.reward, weight)
        out["agent/dream_return"] = target[:, 0].mean()
        out["agent/value"] = raw[:, 0].mean()
        out["agent/cont"] = rollout.cont.mean()
        return out

    def _minibatch(self, rows: list[Tensor]) -> Metrics:
        obs, action, old_logp, state, last_action, old_value, target, advantage, weight = rows
        cfg = self.cfg
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
        actor_grad = optimizer_step(self.actor_optim, self.actor.parameters(), loss, cfg.grad_clip)

        self.critic.units.update(target, weight)
        wanted = self.critic.units.normalise(target)
        value = self.critic(state, last_action)
        loss = F.huber_loss(value, wanted, reduction="none", delta=cfg.critic.huber)
        if cfg.critic.clip_value:
            near = old_value + (value - old_value).clamp(-cfg.clip, cfg.clip)
            loss = torch.maximum(loss, F.huber_loss(near, wanted, reduction="none", delta=cfg.critic.huber))
        value_loss = _mean(loss, weight)
        critic_grad = optimizer_step(self.critic_optim, self.critic.parameters(), value_loss, cfg.grad_clip)
        return {
            "agent/policy": policy_loss.detach(),
            "agent/value_loss": value_loss.detach(),
            "agent/entropy": bonus.detach(),
            "agent/kl": kl,
            "agent/clipped": ((ratio - 1).abs() > cfg.clip).float().mean(),
            "agent/grad_norm": actor_grad,
            "agent/critic_grad_norm": critic_grad,
        }

    def optim_state(self) -> dict:
        """Optimisers and random state, for the checkpoint."""
        return {
            "actor": self.actor_optim.state_dict(),
            "critic": self.critic_optim.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_optim_state(self, state: dict) -> None:
        """Continue from ``optim_state``."""
        self.actor_optim.load_state_dict(state["actor"])
        self.critic_optim.load_state_dict(state["critic"])
        restore_generator(self.generator, state["generator"])


def _mean(value: Tensor, weight: Tensor) -> Tensor:
    return (value * weight).sum() / weight.sum().clamp_min(1e-8)


def _standardise(value: Tensor, weight: Tensor, eps: float) -> Tensor:
    centred = value - _mean(value, weight)
    return centred / (_mean(centred**2, weight).sqrt() + eps)
