"""The interface between the training loop and a policy learner, and the one place that chooses an implementation.

A new learner is a module with a subclass of ``DreamLearner`` or ``ReplayLearner`` and, in ``agent.config``, its
settings (a block of ``AgentConfig``) and a member of ``LearnerKind`` that names the class. One from replay also takes
``start``, ``n_step`` and ``batch`` of ``agent.sac``, which the training loops read.
"""

import importlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dima_isaac.agent.config import AgentConfig
from dima_isaac.nn.optim import Trainable
from dima_isaac.types import Game, Metrics, Step


class Learner(Trainable, ABC):
    """A team of policies that acts anywhere and improves on rollouts, whether dreamt or real.

    Methods of subclasses without a docstring are documented here.
    """

    actor: nn.Module  # what ``mode`` plays; ``generator`` is that of every draw that ``act`` and ``update`` make
    captured: ClassVar[tuple[str, ...]]  # methods that change tensors in place only, and may be played as graphs

    @abstractmethod
    def act(self, obs: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw actions (..., N, A) for obs (..., N, O) and give the log-probability (..., N) of each draw.

        A draw may leave [-1, 1]. With a ``generator`` of the caller's the learner's own stays untouched.
        """

    @abstractmethod
    def mode(self, obs: Tensor) -> Tensor:
        """The deterministic actions (..., N, A) for obs (..., N, O), as the environment takes them."""

    @abstractmethod
    def track(self, step: Step) -> None:
        """Update running statistics with a real row of every environment."""

    def load_policy(self, weights: dict[str, Tensor]) -> None:
        """Begin with the ``weights`` of an exported policy, which are the ``actor``'s."""
        self.actor.load_state_dict(weights)

    @abstractmethod
    def update(self, experience: Any) -> Metrics:
        """Improve on a dreamt ``Rollout`` (learners from dreams) or on ``Transitions`` (learners from replay)."""


class DreamLearner(Learner):
    """One that learns from dreams, and reports which state dimensions its value depends on."""

    @abstractmethod
    def value_gradient(self, state: Tensor, last_action: Tensor) -> Tensor:
        """Mean of (dV/dx)^2 over states x (B, D) and the joint actions (B, N, A) that led to them: (D,)."""


class ReplayLearner(Learner):
    """One that learns from ``Transitions``, replayed or dreamt."""

    rows_per_update: int  # transitions that one ``update`` takes
    updates_per_step: float  # updates for one environment step

    @abstractmethod
    def value_gradient(self, state: Tensor) -> Tensor:
        """Mean of (dV/ds)^2 over raw states s (B, D): (D,)."""


def build_learner(
    cfg: AgentConfig, game: Game, device: torch.device, *, clip_actions: bool = True, bf16: bool = False, seed: int = 0
) -> Learner:
    """The learner that ``cfg.learner`` names.

    Args:
        game: the task, for its sizes, the mask of used actions, and what agents observe of a state.
        clip_actions: whether environments are given actions in [-1, 1] only.
        bf16: whether networks that can may compute in bfloat16.
        seed: of the learner's generator; its weights come from torch's global one.
    """
    return learner_class(cfg)(cfg, game, device, clip_actions=clip_actions, bf16=bf16, seed=seed)


def learner_class(cfg: AgentConfig) -> Any:
    """The subclass of ``Learner`` that ``cfg.learner`` names."""
    module, _, name = cfg.learner.value.partition(":")
    return getattr(importlib.import_module(module), name)
