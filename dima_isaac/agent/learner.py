"""What the training loop asks of a policy learner, and the one place that chooses an implementation.

A new learner is a module with a class that has these methods, its settings in ``agent.config`` (a block of
``AgentConfig`` and a member of ``LearnerKind`` that names the class), and nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dima_isaac.agent.config import AgentConfig
from dima_isaac.types import Game, Metrics, Step


class Learner(Protocol):
    """A team of policies that acts anywhere and improves on rollouts, whether dreamt or real.

    Learners' methods without a docstring do what this class says.
    """

    actor: nn.Module  # the network that acts
    generator: torch.Generator  # of every draw that ``act`` and ``update`` make
    captured: tuple[str, ...]  # methods that change tensors in place only and may be played as graphs (nn.captured)
    steps_per_update: int  # optimiser steps that one ``update`` makes

    def act(self, obs: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw actions (..., N, A) for obs (..., N, O) and give the log-probability (..., N) of each draw.

        A draw may leave [-1, 1]. With a ``generator`` of the caller's the learner's own stays untouched.
        """

    def mode(self, obs: Tensor) -> Tensor:
        """The deterministic actions (..., N, A) for obs (..., N, O), as the environment takes them."""

    def track(self, step: Step) -> None:
        """Update running statistics with a real row of every environment."""

    def update(self, experience: Any) -> Metrics:
        """Improve on a dreamt ``Rollout`` (learners from dreams) or on ``Transitions`` (learners from replay)."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Everything that is learned."""

    def state_dict(self) -> dict[str, Any]:
        """Parameters and running statistics."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take over a ``state_dict``."""

    def optim_state(self) -> dict[str, Any]:
        """Optimisers and random state: what ``state_dict`` lacks to continue bit for bit."""

    def load_optim_state(self, state: dict[str, Any]) -> None:
        """Continue from ``optim_state``. On another kind of device the random stream starts anew."""


class DreamLearner(Learner, Protocol):
    """One that learns from dreams, and says where they have to be accurate."""

    def value_gradient(self, state: Tensor, last_action: Tensor) -> Tensor:
        """Mean of (dV/dx)^2 over states x (B, D) and the joint actions (B, N, A) that led to them: (D,)."""


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
    module, _, name = cfg.learner.value.partition(":")
    learner: Learner = getattr(importlib.import_module(module), name)(
        cfg, game, device, clip_actions=clip_actions, bf16=bf16, seed=seed
    )
    return learner
