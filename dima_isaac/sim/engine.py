"""The engine contract: E copies of a scene as tensors, in Isaac Gym's conventions.

Quaternions are xyzw, positions environment-local at the link origin, linear and angular velocities in world
axes, the linear one at the link's centre of mass. Views are float32, on the engine's device, allocated once
and updated in place by ``step`` and ``refresh``; they are read-only by contract.

Writes are staged and flushed once, at the start of ``step`` or ``refresh``; a tensor that was staged may be read as
late as that, so leave it alone until then. Resets take a boolean mask (E,),
never an index list: shapes stay static, nothing synchronises, and the whole step can be captured in a graph.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dima_isaac.sim.scene import Scene

MAX_SPEED = 1000.0  # rad/s or m/s; an environment that is faster is broken (shaken hands reach 35)
FRAME = 13  # numbers of a frame: position 3, quaternion 4, linear 3 and angular velocity 3


@dataclass(frozen=True)
class Capabilities:
    """What an engine promises, and which of its optional methods work."""

    deterministic: bool  # same inputs, same bits, whatever the thread count
    on_host: bool  # tensors live in host memory, so reading a number costs nothing
    rewinds: bool = True  # ``load_state_dict`` brings an earlier state back, so that other actions can be tried from it
    viewer: bool = False  # ``copy_env``: MuJoCo's viewers can show it
    bare_physics: bool = False  # ``bare_physics``: its speed can be compared with that of its physics steps alone


class BarePhysics(Protocol):
    """Repeats an engine's physics steps and nothing else: the baseline of benchmarks."""

    def record(self) -> None:
        """Note what the engine's control steps start from, from now on; earlier notes are dropped."""

    def replay(self) -> float:
        """Stop recording and return the seconds that the recorded physics steps take.

        Every environment finishes a control step before the next one begins, as anything must that waits for actions.
        """

    def close(self) -> None:
        """Release threads and memory."""


class Engine(Protocol):
    """E copies of one ``Scene``. Shapes: L registered links, U actuated dofs, S force sensors.

    What ``force_sensor`` and ``dof_force`` contain differs between simulators, and is documented in each engine.
    """

    scene: Scene
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
    dof_force: Tensor  # (E, dofs) generalised force of the drives, N m or N
    body_state: Tensor  # (E, L, 13)
    force_sensor: Tensor  # (E, S, 6) force and torque on the link, in its frame
    bad: Tensor  # (E,) bool: in the last step this environment became non-finite or faster than ``MAX_SPEED``

    # staged writes
    def set_dof_target(self, target: Tensor) -> None:
        """Position targets (E, U) for the actuated dofs, held until the next call; ValueError for another shape."""

    def apply_force(self, actor: int, force: Tensor, torque: Tensor) -> None:
        """Force and torque (E, 3) in world axes at the centre of mass of the actor's wrench link, for one step.

        Raises:
            ValueError: an actor without a wrench link.
        """

    def set_root_state(self, mask: Tensor, actor: int, state: Tensor) -> None:
        """Write (E, 13) to one actor's root where ``mask`` (E,); markers use the pose only.

        Raises:
            ValueError: a fixed actor.
        """

    def set_dof_state(self, mask: Tensor, pos: Tensor, vel: Tensor) -> None:
        """Write all dofs (E, dofs) where ``mask`` (E,); the solver's warm start and forces there are cleared."""

    # raw fields of ``Scene.fields``, in the engine's own precision and layout
    def field(self, name: str) -> Tensor:
        """The live (E, ...) tensor of one raw field, exactly as the last physics step left it; read-only by contract.

        Raises KeyError with the fields that the scene registered.
        """

    def set_field(self, mask: Tensor, name: str, value: Tensor) -> None:
        """Stage a raw state field (E, ...) where ``mask`` (E,).

        Writing ``qpos`` or ``qvel`` starts these environments anew: everything else returns to the model's defaults.
        Other fields (``ctrl``, ``xfrc_applied``) are simply written. Raises KeyError with the fields that can be.
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

        Raises:
            SimulationError: the simulator failed, or every environment broke many steps in a row; engines whose
                numbers are on another device find the latter in ``stats``, which reads one number from there.
        """

    def refresh(self, mask: Tensor) -> None:
        """Flush and bring the views of ``mask`` (E,) up to date without advancing time."""

    # the rest
    def stats(self) -> dict[str, Tensor]:
        """Counters since construction, 0-dimensional: environments found ``nonfinite``; steps of environments with
        full contact buffers, ``contact_overflow``."""

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of all that a continuation needs, bit for bit in deterministic engines; no staged writes."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict``; raises ValueError when the shapes are another scene's."""

    def render(self, env: int, width: int, height: int) -> np.ndarray:
        """One environment as (height, width, 3) uint8. Raises ``UsageError`` where nothing can be drawn."""

    def close(self) -> None:
        """Release threads, memory and renderers."""

    # optional, as ``capabilities`` says
    def copy_env(self, env: int, data: Any) -> None:
        """Write one environment's joints and markers into ``data`` (``mujoco.MjData``) of the model for pictures."""

    def bare_physics(self) -> BarePhysics:
        """A baseline that can record this engine's steps and repeat their physics."""


def names_to_index(names: tuple[str, ...], wanted: list[str], device: Any = None) -> Tensor:
    """The positions of ``wanted`` in ``names``; a wrong name raises KeyError with the ones that exist."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise KeyError(f"{missing} not among {list(names)}")
    return torch.tensor([names.index(name) for name in wanted], dtype=torch.int64, device=device)
