"""What the engines of this package have in common: names and limits, checked writes, saving, pictures.

A new engine derives from ``BaseEngine``, which checks arguments and leaves the physics to it.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from dima_isaac.errors import SimulationError
from dima_isaac.sim.compiled import Compiled
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.render import Renderer
from dima_isaac.sim.scene import Scene

MAX_BROKEN_STEPS = 10
"""Control steps in a row in which every environment broke, after which a run ends."""


class BaseEngine(Engine, ABC):
    """An engine of a compiled scene; derived classes add the views, ``set_dof_state``, ``step`` and ``refresh``.

    Methods without a docstring are documented in ``Engine``.
    """

    _settable: tuple[str, ...] = ()
    """The raw fields that ``set_field`` takes."""

    def __init__(
        self, scene: Scene, compiled: Compiled, num_envs: int, device: torch.device, control_dt: float, substeps: int
    ) -> None:
        self.scene, self.num_envs, self.device = scene, num_envs, device
        self.control_dt, self.substeps = control_dt, substeps
        self._compiled = compiled
        self._raw = bool(scene.world)
        self.actor_names, self.dof_names = compiled.actor_names, compiled.dof_names
        self.link_names = compiled.link_names[: len(scene.links)]
        self.actuator_dofs = torch.from_numpy(compiled.actuator_dofs).to(device)
        self.dof_lower = torch.from_numpy(compiled.dof_lower).float().to(device)
        self.dof_upper = torch.from_numpy(compiled.dof_upper).float().to(device)
        self._target_shape = (num_envs, len(compiled.actuator_dofs))
        self._movable = ((compiled.root_qpos >= 0) | (compiled.root_mocap >= 0)).tolist()
        self._wrench_body: list[int] = compiled.wrench_body.tolist()
        self._fields: dict[str, Tensor] = {}
        self._renderer: Renderer | None = None

    # ---- staged writes -----------------------------------------------------------------------------------------

    def set_dof_target(self, target: Tensor) -> None:
        if target.shape != self._target_shape:
            raise ValueError(f"targets must be {self._target_shape}, not {tuple(target.shape)}")
        self._stage_target(target)

    def apply_force(self, actor: int, force: Tensor, torque: Tensor) -> None:
        if self._wrench_body[actor] < 0:
            raise ValueError(f"actor '{self.actor_names[actor]}' has no wrench link")
        self._stage_force(actor, force, torque)

    def set_root_state(self, mask: Tensor, actor: int, state: Tensor) -> None:
        if not self._movable[actor]:
            raise ValueError(f"actor '{self.actor_names[actor]}' is fixed and cannot be moved")
        self._stage_root(mask, actor, state)

    def set_field(self, mask: Tensor, name: str, value: Tensor) -> None:
        if name not in self._settable:
            raise KeyError(f"field '{name}' cannot be written; these can: {', '.join(self._settable) or 'none'}")
        self._stage_field(mask, name, value)

    @abstractmethod
    def _stage_target(self, target: Tensor) -> None: ...

    @abstractmethod
    def _stage_force(self, actor: int, force: Tensor, torque: Tensor) -> None: ...

    @abstractmethod
    def _stage_root(self, mask: Tensor, actor: int, state: Tensor) -> None: ...

    def _stage_field(self, mask: Tensor, name: str, value: Tensor) -> None:
        raise NotImplementedError(f"{type(self).__name__} has fields that can be written and does not write them")

    # ---- raw fields and constants of the model -----------------------------------------------------------------

    def field(self, name: str) -> Tensor:
        if name not in self._fields:
            raise KeyError(f"field '{name}' not among {list(self._fields)}")
        return self._fields[name]

    def constant(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(getattr(self._compiled.model, name))).to(self.device)

    @property
    def body_names(self) -> tuple[str, ...]:
        model = self._compiled.model
        return tuple(model.body(i).name for i in range(model.nbody))

    # ---- the rest ----------------------------------------------------------------------------------------------

    def _check_broken(self, steps: int) -> None:
        """End a run whose every environment broke in each of the last ``steps`` control steps.

        Raises:
            SimulationError: ``steps`` has reached ``MAX_BROKEN_STEPS``.
        """
        if steps >= MAX_BROKEN_STEPS:
            raise SimulationError(
                f"all {self.num_envs} environments were non-finite for {steps} steps in a row: are the actions finite?"
            )

    @abstractmethod
    def _saved(self) -> dict[str, Tensor]:
        """Every live tensor that a continuation needs."""

    @abstractmethod
    def _before_load(self, state: dict[str, Tensor]) -> None:
        """Discard staged writes; ``state`` has the right shapes and is about to be copied into ``_saved``."""

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._saved().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        own = self._saved()
        for name, tensor in own.items():
            if name not in state or state[name].shape != tensor.shape:
                found = tuple(state[name].shape) if name in state else "no shape"
                raise ValueError(f"the saved physics has {found} for {name}, this scene {tuple(tensor.shape)}")
        self._before_load(state)
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def render(self, env: int, width: int, height: int) -> np.ndarray:
        if self._renderer is None:
            self._renderer = Renderer(self.scene)
        return self._renderer.draw(self, env, width, height)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
