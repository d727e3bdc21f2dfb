"""A task is one Markov game on an engine: who acts, what is seen, what it is worth, how it starts.

The contract is this file. ``observe`` is a pure function of the state: the simulator, the replay (which keeps
states only) and the dream use the same object, so that no observation can differ between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from dima_isaac.envs.noise import Noise
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.scene import Scene
from dima_isaac.types import Dims


@dataclass(frozen=True)
class TaskSpec:
    """What a learner may know of a task."""

    name: str
    dims: Dims
    episode_length: int  # control steps until the time limit
    control_dt: float  # seconds
    agent_names: tuple[str, ...]
    last_action_index: Tensor | None = (
        None  # (N, A) int64: where the state repeats the action just taken, -1 where it does not
    )
    output_only: Tensor | None = None  # (D,) bool: what physics reports and does not go on from, such as contact forces
    goal: bool = True  # whether there is anything to succeed in: robots that run have none, and report no success
    action_mask: Tensor | None = None  # (N, A) bool: False where a shorter agent's action is padding; None = all used
    notes: tuple[str, ...] = field(default=())  # printed at construction: protocol, observability, profile


@dataclass
class Outcome:
    """What the task says of the state just reached."""

    reward: Tensor  # (E,) the team's
    terminal: Tensor  # (E,) bool, the task ends the episode here
    success: Tensor  # (E,) bool, the goal is met in this state; the environment latches it over the episode
    terms: dict[str, Tensor]  # (E,) each; their sum is the reward where the task says so
    truncated: Tensor | None = None  # (E,) bool: a clock of the task's own ended the episode here


class Task(Protocol):
    """One Markov game. Construction takes the task's own config; ``bind`` resolves names once."""

    spec: TaskSpec

    def scene(self) -> Scene:
        """The world to build."""

    def bind(self, engine: Engine) -> None:
        """Resolve names to index tensors and allocate what the task remembers. Called once, before anything else."""

    def reset(self, engine: Engine, mask: Tensor, noise: Noise) -> None:
        """Stage the start of an episode where ``mask`` (E,). ``noise`` is keyed by environment and episode."""

    def act(self, engine: Engine, action: Tensor) -> None:
        """Stage targets and forces for ``action`` (E, N, A); the task clips to [-1, 1]."""

    def state(self, engine: Engine) -> Tensor:
        """The global state (E, D), a new tensor."""

    def observe(self, state: Tensor) -> Tensor:
        """What each agent sees: (..., D) -> (..., N, O). Pure."""

    def compute_reward(self, engine: Engine) -> Outcome:
        """Reward, termination and success of the state just reached."""

    def state_dict(self) -> dict[str, Tensor]:
        """What the task remembers between steps (last actions, goals)."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict``."""
