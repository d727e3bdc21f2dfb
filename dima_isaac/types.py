"""The tensors that cross module boundaries, and the names of their axes.

Axes    E parallel environments   N agents              D numbers in the global state
        B batch                   K reverse steps       O numbers in one agent's observation
        T steps in a window       H imagined steps      A numbers in one agent's action

Spaces  s raw state    z = (s - mean) / std    x = sigma_data * z    y what is diffused (world_model.target)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Policy = Callable[[Tensor], tuple[Tensor, Tensor]]
"""obs (..., N, O) -> action (..., N, A), log-probability (..., N)"""

Controller = Callable[[Tensor], Tensor]
"""obs (E, N, O) -> action (E, N, A), as the environment takes it"""

Metrics = dict[str, Tensor]
"""name -> 0-dimensional tensor on the learner's device; fetched once per logged row"""


def restore_generator(stream: torch.Generator, state: Tensor) -> None:
    """Continue random numbers from ``state``; those of another kind of device mean nothing here, and are left out."""
    if state.shape == stream.get_state().shape:
        stream.set_state(state.cpu())


@dataclass(frozen=True)
class Dims:
    """The sizes of one Markov game."""

    agents: int  # N
    state: int  # D
    obs: int  # O, the longest agent's; shorter ones are padded with zeros
    action: int  # A, the longest agent's; shorter ones ignore the rest


class GameSpec(Protocol):
    """What learners need of a task's specification (``envs.task.TaskSpec``)."""

    @property
    def dims(self) -> Dims: ...

    @property
    def last_action_index(self) -> Tensor | None: ...

    @property
    def output_only(self) -> Tensor | None: ...

    @property
    def action_mask(self) -> Tensor | None: ...


class Game(Protocol):
    """What learners need of a task (``envs.task.Task``)."""

    @property
    def spec(self) -> GameSpec: ...

    def observe(self, state: Tensor) -> Tensor:
        """What each agent observes: (..., D) -> (..., N, O). Pure."""


@dataclass
class Step:
    """One tick of every environment. A finished episode spends its next tick on the reset."""

    state: Tensor  # (E, D)     s_t
    obs: Tensor  # (E, N, O)  what each agent sees of s_t
    reward: Tensor  # (E,)       team reward for arriving in s_t, 0 on first rows
    first: Tensor  # (E,) bool  the episode starts here (the action that led here was ignored)
    last: Tensor  # (E,) bool  the episode ends here ...
    terminal: Tensor  # (E,) bool  ... because the task ended it, not the clock

    @property
    def cut_short(self) -> Tensor:
        """(E,) bool: the episode ended, but at the time limit or because its physics failed, not by the task.

        Also true in a tick that is spent on a reset.
        """
        return (self.last | self.first) & ~self.terminal


@dataclass
class Window:
    """T consecutive rows of B environments, aligned at the end; rows of an earlier episode are zero and not valid.

    The step from row t - 1 to row t was seen if row t - 1 is valid. ``action[:, t]`` was taken in ``state[:, t]``;
    ``reward[:, t]`` and ``terminal[:, t]`` belong to arriving there.
    """

    state: Tensor  # (B, T, D) raw s
    action: Tensor  # (B, T, N, A)
    reward: Tensor  # (B, T)
    terminal: Tensor  # (B, T) bool
    valid: Tensor  # (B, T) bool, a suffix of the window
    last: Tensor  # (B, T) bool, the episode ended there, by the task or by the clock

    def rows(self, start: int | None, stop: int | None) -> "Window":
        """Its rows ``start`` to ``stop`` - 1, as a slice counts them."""
        return Window(*(column[:, start:stop] for column in vars(self).values()))


@dataclass
class Transitions:
    """B steps, or several steps in a row counted as one."""

    state: Tensor  # (B, D) raw s
    action: Tensor  # (B, N, A) taken in it
    reward: Tensor  # (B,) discounted sum over the steps
    discount: Tensor  # (B,) of the value of ``next_state``; 0 where the task ended the episode
    next_state: Tensor  # (B, D) raw s after the steps
    counted: Tensor  # (B,) bool, False where the row is no step: the episode was over


@dataclass
class Rollout:
    """A dream: the policy's actions and the world model's predictions."""

    obs: Tensor  # (B, H, N, O)
    state: Tensor  # (B, H + 1, D) raw s
    x: Tensor  # (B, H + 1, D) the normalised state, which PPO's critic sees
    last_action: Tensor  # (B, H + 1, N, A) the joint action that led into each state
    action: Tensor  # (B, H, N, A)
    logp: Tensor  # (B, H, N)
    reward: Tensor  # (B, H)           for arriving in state h + 1
    cont: Tensor  # (B, H)           probability that the episode goes on there
