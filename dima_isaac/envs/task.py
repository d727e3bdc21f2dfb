"""A task is one Markov game on an engine: who acts, what is observed, the reward, and how episodes start and end.

The contract is this file. ``observe`` is a pure function of the state: the simulator, the replay (which keeps
states only) and the dream use the same object, so that no observation can differ between them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from dima_isaac.envs.noise import Noise
from dima_isaac.errors import UsageError
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.scene import Scene
from dima_isaac.types import Dims


@dataclass(frozen=True)
class TaskSpec:
    """The sizes and properties of a task that learners use."""

    name: str
    dims: Dims
    episode_length: int  # control steps until the time limit
    control_dt: float  # seconds
    agent_names: tuple[str, ...]
    last_action_index: Tensor | None = None
    """(N, A) int64: the column of the state that holds the action just taken, -1 where none does; None: no column."""
    output_only: Tensor | None = None
    """(D,) bool: columns that follow from the others and that the next state does not depend on (contact forces)."""
    object_columns: Tensor | None = None
    """(objects, 3) int64: columns that hold the positions of what physics alone moves; None: there is nothing such."""
    goal: bool = True  # whether the task can succeed; without a goal no success is reported (robots that run)
    action_mask: Tensor | None = None  # (N, A) bool: False where a shorter agent's action is padding; None = all used
    notes: tuple[str, ...] = ()  # printed at construction: protocol, observability, profile


@dataclass
class Outcome:
    """Reward and flags of the state just reached."""

    reward: Tensor  # (E,) of the team
    terminal: Tensor  # (E,) bool, the task ends the episode here
    success: Tensor  # (E,) bool, the goal is met in this state; the environment latches it over the episode
    terms: dict[str, Tensor]  # (E,) each; their sum is the reward unless the task documents otherwise
    truncated: Tensor | None = None  # (E,) bool, a time limit of the task's own ended the episode here


class Task(ABC):
    """One Markov game. The constructor takes a ``Config``; ``bind`` is called once, before anything else.

    The members after the abstract ones are optional: their defaults are a task without that ability. A task's methods
    without a docstring are documented in this class.
    """

    Config: ClassVar[type[Any]]  # the dataclass of the task's settings
    spec: TaskSpec

    def scene(self) -> Scene:
        """What an engine is to simulate. Every task has one, except those that simulate themselves."""
        raise UsageError(f"task {self.spec.name} simulates itself and has no scene for an engine.")

    @abstractmethod
    def bind(self, engine: Engine) -> None:
        """Resolve names to index tensors on the engine's device, and allocate what lasts from step to step."""

    @abstractmethod
    def reset(self, engine: Engine, mask: Tensor, noise: Noise) -> None:
        """Stage the start of an episode where ``mask`` (E,). ``noise`` is keyed by environment and episode."""

    @abstractmethod
    def act(self, engine: Engine, action: Tensor) -> None:
        """Stage targets and forces for ``action`` (E, N, A); the task clips to [-1, 1]."""

    @abstractmethod
    def state(self, engine: Engine) -> Tensor:
        """The global state (E, D), a new tensor."""

    @abstractmethod
    def observe(self, state: Tensor) -> Tensor:
        """What each agent sees: (..., D) -> (..., N, O). Pure."""

    @abstractmethod
    def compute_reward(self, engine: Engine) -> Outcome:
        """Reward, termination and success of the state just reached."""

    # ---- optional ----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """What the task keeps from step to step (last actions, goals)."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:  # noqa: B027 (a default, not a gap)
        """Continue from ``state_dict``."""

    preferred_engine: ClassVar[str] = ""
    """The engine that ``engine=auto`` takes wherever it can run; empty: the first of auto's candidates."""

    own_engine: ClassVar[bool] = False
    """Whether the task simulates itself, on the CPU; then ``build_engine`` takes the place of ``scene``."""

    def build_engine(self, num_envs: int) -> Any:
        """The engine of a task with ``own_engine``; it has those members of ``Engine`` that ``VecEnv`` uses."""
        raise NotImplementedError

    def describe(self, index: int) -> str:
        """A short name of one number of the state, for figures."""
        return f"state dimension {index}"

    def pose(self, engine: Engine, state: Tensor) -> None:
        """Stage what ``state`` (E, D) shows, for pictures of dreams.

        Raises:
            UsageError: the state does not determine the pose.
        """
        raise UsageError(f"world=dream cannot draw task {self.spec.name}: its state does not determine the pose.")

    def physics_state(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of generalised positions (E, nq) and velocities (E, nv), float64.

        Raises:
            UsageError: the task does not expose them.
        """
        raise self._no_physics_state()

    def set_physics_state(self, engine: Engine, qpos: Any, qvel: Any) -> Tensor:
        """Start environments at qpos (E, nq), qvel (E, nv), except those that are there. Returns who moved (E,) bool.

        Raises:
            UsageError: the task does not expose them.
            ValueError: arrays of another shape.
        """
        raise self._no_physics_state()

    def _no_physics_state(self) -> UsageError:
        return UsageError(f"task {self.spec.name} has no physics_state; the Multi-Agent MuJoCo tasks have.")
