"""The engine contract: E copies of a scene as tensors (Isaac Gym's conventions are the house conventions).

Quaternions are xyzw, positions environment-local at the link origin, linear and angular velocities in world
axes, the linear one at the link's centre of mass. Views are float32, on the engine's device, allocated once
and updated in place by ``step`` and ``refresh``; they are read-only by contract.

Writes are staged and flushed once, at the start of ``step`` or ``refresh``; a tensor that was staged may be read as
late as that, so leave it alone until then. Resets take a boolean mask (E,),
never an index list: shapes stay static, nothing synchronises, and the whole step can be captured in a graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Capabilities:
    """What an engine can promise."""

    deterministic: bool  # same inputs, same bits, whatever the thread count
    fresh_after_reset: bool  # link poses are current straight after a masked reset
    force_sensor: str  # what ``force_sensor`` means here, for the documentation and the run's config
    dof_force: str  # what ``dof_force`` means here
    on_host: bool  # tensors live in host memory, so reading a number costs nothing


class Engine(Protocol):
    """E copies of one ``Scene``. Shapes: L registered links, U actuated dofs, S force sensors."""

    num_envs: int
    device: torch.device
    control_dt: float  # seconds per step()
    substeps: int  # physics steps per step()
    capabilities: Capabilities

    # names, resolved once by the task into index tensors
    actor_names: tuple[str, ...]
    link_names: tuple[str, ...]  # axis L of body_state
    dof_names: tuple[str, ...]  # "actor/joint", scene order, hinges and slides only
    actuator_dofs: Tensor  # (U,) int64: the dof that each target drives
    dof_lower: Tensor  # (dofs,) limits, rad or m
    dof_upper: Tensor  # (dofs,)

    # views
    root_state: Tensor  # (E, actors, 13) pose 7, linear 3, angular 3
    dof_pos: Tensor  # (E, dofs)
    dof_vel: Tensor  # (E, dofs)
    dof_force: Tensor  # (E, dofs) generalised drive force, N m or N
    body_state: Tensor  # (E, L, 13)
    force_sensor: Tensor  # (E, S, 6) force, torque in the link's frame
    bad: Tensor  # (E,) bool: the last step made this environment non-finite or unusable

    # staged writes
    def set_dof_target(self, target: Tensor) -> None:
        """Position targets (E, U) for the actuated dofs, held until the next call."""

    def apply_force(self, actor: int, force: Tensor, torque: Tensor) -> None:
        """Force and torque (E, 3) in world axes at the centre of mass of the actor's wrench link, for one step."""

    def set_root_state(self, mask: Tensor, actor: int, state: Tensor) -> None:
        """Write (E, 13) to one actor's root where ``mask`` (E,); markers use the pose only."""

    def set_dof_state(self, mask: Tensor, pos: Tensor, vel: Tensor) -> None:
        """Write all dofs (E, dofs) where ``mask`` (E,). Clears what the solver remembers of these environments."""

    # raw fields of ``Scene.fields``, in the engine's own precision and layout
    def field(self, name: str) -> Tensor:
        """The live (E, ...) tensor of one raw field, exactly as the last physics step left it; read-only by contract.

        Raises KeyError with the fields that the scene registered.
        """

    def set_field(self, mask: Tensor, name: str, value: Tensor) -> None:
        """Stage a raw state field (E, ...) where ``mask`` (E,).

        Writing ``qpos`` or ``qvel`` starts these environments anew: everything that is not written returns to
        the model's defaults and the solver forgets. Other fields (``ctrl``, ``xfrc_applied``) are plain writes.
        """

    def constant(self, name: str) -> Tensor:
        """A copy of one raw field of the model (``actuator_ctrlrange``, ``body_mass``), in its own precision."""

    @property
    def body_names(self) -> tuple[str, ...]:
        """Every body of the model, the world first: the axis of raw fields such as ``xpos``."""

    # time
    def step(self, hold: Tensor) -> None:
        """Flush, advance one control step except where ``hold`` (E,), and bring every view up to date.

        Held environments take the staged writes and get their views by forward kinematics only.
        An environment that turns non-finite is flagged in ``bad`` and touches no other.
        """

    def refresh(self, mask: Tensor) -> None:
        """Flush and bring the views of ``mask`` (E,) up to date without advancing time."""

    # the rest
    def stats(self) -> dict[str, Tensor]:
        """Counters since construction, 0-dimensional: ``nonfinite``, ``contact_overflow``."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that ``load_state_dict`` needs to continue bit for bit (deterministic engines)."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict``; raises ValueError when the shapes are another scene's."""

    def render(self, env: int, width: int, height: int) -> np.ndarray:
        """One environment as (height, width, 3) uint8. Raises ``UsageError`` when no renderer is there."""

    def close(self) -> None:
        """Release threads, memory and renderers."""


def names_to_index(names: tuple[str, ...], wanted: list[str], device: Any = None) -> Tensor:
    """The positions of ``wanted`` in ``names``; a wrong name raises KeyError with the ones that exist."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise KeyError(f"{missing} not among {list(names)}")
    return torch.tensor([names.index(name) for name in wanted], dtype=torch.int64, device=device)


def check_shapes(state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Raise ValueError unless the saved ``state`` has every tensor of ``own``, in its shape."""
    for name, mine in own.items():
        if name not in state or state[name].shape != mine.shape:
            found = tuple(state[name].shape) if name in state else "no shape"
            raise ValueError(f"the saved physics has {found} for {name}, this scene {tuple(mine.shape)}")
