"""NVIDIA's Isaac Gym Preview 4, the user's own installation: PhysX on thousands of environments on a GPU.

Isaac Gym exists for Python 3.6 to 3.8 only, so it runs in a process of its own (``worker.py``), and its state
is seen here as tensors of memory that both processes map. A crash of the simulator cannot end the learner,
and several simulations can run side by side.

Not verified with a real Isaac Gym yet: its documented behaviour is what ``tests/sim/fake_isaacgym`` enforces.
"""

from __future__ import annotations

from pathlib import Path

import mujoco
import torch
from torch import Tensor

from dima_isaac.errors import UsageError
from dima_isaac.sim.base import BaseEngine
from dima_isaac.sim.compiled import compile_scene
from dima_isaac.sim.config import IsaacGymConfig, PhysicsConfig, Share
from dima_isaac.sim.engine import FRAME, Capabilities
from dima_isaac.sim.isaacgym.description import describe
from dima_isaac.sim.isaacgym.process import WorkerProcess, interpreter
from dima_isaac.sim.isaacgym.shared_memory import SharedTensors
from dima_isaac.sim.rotations import rotate
from dima_isaac.sim.scene import Scene
from dima_isaac.sim.variation import varies

START_TIMEOUT = 600.0  # s until the scene is built: the first start compiles gymtorch
STEP_TIMEOUT = 60.0  # s that one step may take


class IsaacGymEngine(BaseEngine):
    """The Isaac Gym engine; see ``Engine`` for the contract.

    After a reset joints and roots are current; links follow at the next step. One control step waits for the device
    once, because the other process has to be told. ``force_sensor`` is PhysX's force and torque on the link, of
    dynamics and constraints, in the link's axes; ``dof_force`` its joint force of drives and constraints.
    """

    def __init__(self, scene: Scene, num_envs: int, cfg: IsaacGymConfig, device: torch.device) -> None:
        """Start the worker and build ``scene`` there.

        Raises:
            UsageError: no interpreter, or a scene with what Isaac Gym does not have.
            WorkerError: Isaac Gym did not start; its last messages are in the error.
        """
        if scene.world:
            raise UsageError(f"engine=isaacgym has no robots of {Path(scene.world).name}; use engine=mujoco.")
        if varies(scene):
            raise UsageError("engine=isaacgym does not randomise yet; use engine=mujoco or mujoco_warp.")
        self.cfg = cfg
        compiled = compile_scene(scene, PhysicsConfig(), sensors=False)
        seen_on = torch.device("cpu") if cfg.share is Share.host else device
        super().__init__(scene, compiled, num_envs, seen_on, scene.control_dt, cfg.substeps)
        self.capabilities = Capabilities(deterministic=False, on_host=seen_on.type == "cpu", viewer=True)
        self._wrench_actors = [index for index, body in enumerate(self._wrench_body) if body >= 0]
        self._worker = WorkerProcess(interpreter(cfg))
        try:
            self._create(str(device))
        except BaseException:
            self.close()
            raise
        finally:
            self._worker.remove_folder()

    # ---- construction ------------------------------------------------------------------------------------------

    def _create(self, device: str) -> None:
        """Share memory with the worker and have it build the scene on its ``device``."""
        memory = SharedTensors(self._layout(), self.device)
        try:
            self._bind(memory.tensors)
            command = {"do": "create", "device": device, "num_envs": self.num_envs, "memory": memory.description}
            command |= describe(self.scene, self._compiled, self.cfg, self._worker.folder)
            self._worker.call(command, START_TIMEOUT)
        finally:  # both processes have opened it: if they are killed, no file is left behind
            memory.unlink()

    def _layout(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of every shared tensor: what is written here, then what the worker writes."""
        e, a, u = self.num_envs, len(self.actor_names), len(self.actuator_dofs)
        dofs, links, sensors = len(self.dof_names), len(self.link_names), len(self.scene.force_sensors)
        return {
            **{"root_mask": (e, a), "root_value": (e, a, FRAME), "dof_mask": (e,), "dof_value": (e, dofs, 2)},
            **{"target": (e, u), "wrench": (e, len(self._wrench_actors), 6), "hold": (e,), "mask": (e,)},
            **{"root": (e, a, FRAME), "body": (e, links, FRAME), "dof": (e, dofs, 2), "dof_force": (e, dofs)},
            **{"sensor": (e, sensors, 6), "bad": (e,), "counts": (2,)},
        }

    def _bind(self, shared: dict[str, Tensor]) -> None:
        self._shared = shared
        self.root_state, self.body_state = shared["root"], shared["body"]
        self.dof_pos, self.dof_vel = shared["dof"].unbind(-1)
        self.dof_force, self.force_sensor = shared["dof_force"], shared["sensor"]
        self.bad = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self._nonfinite, self._broken_runs = (torch.zeros((), dtype=torch.int64, device=self.device) for _ in range(2))
        self._staged = dict.fromkeys(("roots", "dofs", "targets", "wrenches"), False)

    # ---- staged writes -----------------------------------------------------------------------------------------

    def _stage_target(self, target: Tensor) -> None:
        self._shared["target"].copy_(target)
        self._staged["targets"] = True

    def _stage_force(self, actor: int, force: Tensor, torque: Tensor) -> None:
        wrench = self._shared["wrench"]
        if not self._staged["wrenches"]:
            wrench.zero_()
        wrench[:, self._wrench_actors.index(actor)] = torch.cat([force, torque], 1)
        self._staged["wrenches"] = True

    def _stage_root(self, mask: Tensor, actor: int, state: Tensor) -> None:
        values = self._shared["root_value"][:, actor]
        size = 7 if self.scene.actors[actor].marker else FRAME
        values[:, :size] = torch.where(mask[:, None], state[:, :size], values[:, :size])
        self._shared["root_mask"][:, actor].masked_fill_(mask, 1.0)
        self._staged["roots"] = True

    def set_dof_state(self, mask: Tensor, pos: Tensor, vel: Tensor) -> None:
        values = self._shared["dof_value"]
        values.copy_(torch.where(mask[:, None, None], torch.stack([pos, vel], -1), values))
        self._shared["dof_mask"].masked_fill_(mask, 1.0)
        self._staged["dofs"] = True

    # ---- time --------------------------------------------------------------------------------------------------

    def step(self, hold: Tensor) -> None:
        """Flush, advance one control step except where ``hold`` (E,), and bring every view up to date.

        Held environments take the staged writes; their links are shown one step later than their joints.

        Raises:
            WorkerError: Isaac Gym died, failed, or did not answer in time.
        """
        shared = self._shared
        shared["hold"].copy_(hold)
        self._call("step")
        torch.gt(shared["bad"], 0.5, out=self.bad)
        self._nonfinite += shared["counts"][0].to(torch.int64)
        self._broken_runs.copy_(torch.where(shared["counts"][1] > 0.5, self._broken_runs + 1, 0))

    def refresh(self, mask: Tensor) -> None:
        """Flush and bring roots and joints of ``mask`` (E,) up to date; its links are shown as they were authored."""
        self._shared["mask"].copy_(mask)
        self._call("refresh")

    def _call(self, what: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # the other process has no part in our stream
        self._worker.call({"do": what, **self._staged}, STEP_TIMEOUT)
        if self._staged["roots"]:
            self._shared["root_mask"].zero_()
        if self._staged["dofs"]:
            self._shared["dof_mask"].zero_()
        waiting = what == "refresh" and self._staged["wrenches"]  # forces act in a step, the next one
        self._staged = {**dict.fromkeys(self._staged, False), "wrenches": waiting}

    # ---- the rest ----------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Tensor]:
        """Counters since construction: environments found ``nonfinite``; lines in which PhysX prints that its contact
        buffers are full (``contact_overflow``: raise engine.max_gpu_contact_pairs or engine.buffer_size_multiplier).

        Reads one number from the device.

        Raises:
            SimulationError: every environment broke many steps in a row.
        """
        self._check_broken(int(self._broken_runs))
        overflow = torch.tensor(self._worker.overflows(), device=self.device)
        return {"nonfinite": self._nonfinite.clone(), "contact_overflow": overflow}

    def _saved(self) -> dict[str, Tensor]:
        """Roots, joints, targets, views and counters; PhysX does not show its contacts and warm starts."""
        names = ("root", "body", "dof", "dof_force", "sensor", "target")
        counters = {"bad": self.bad, "nonfinite": self._nonfinite, "broken_runs": self._broken_runs}
        return {**{name: self._shared[name] for name in names}, **counters}

    def _before_load(self, state: dict[str, Tensor]) -> None:
        """Have the worker start from the loaded roots, joints and targets."""
        state = {name: value.to(self.device) for name, value in state.items()}
        everywhere = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        for index, movable in enumerate(self._movable):
            if movable:
                self.set_root_state(everywhere, index, state["root"][:, index])
        self.set_dof_state(everywhere, *state["dof"].unbind(-1))
        self.set_dof_target(state["target"])
        self.refresh(everywhere)

    def copy_env(self, env: int, data: mujoco.MjData) -> None:
        compiled = self._compiled
        roots, joints = self.root_state[env].cpu(), self.dof_pos[env].cpu().numpy()
        data.qpos[compiled.dof_qpos] = joints
        for index, root in enumerate(roots):
            offset = torch.from_numpy(compiled.root_offset[index]).float()
            pos = (root[:3] + rotate(root[3:7], offset)).numpy()
            wxyz = root[[6, 3, 4, 5]].numpy()
            if (start := compiled.root_qpos[index]) >= 0:
                data.qpos[start : start + 3], data.qpos[start + 3 : start + 7] = pos, wxyz
            elif (mocap := compiled.root_mocap[index]) >= 0:
                data.mocap_pos[mocap], data.mocap_quat[mocap] = pos, wxyz

    def close(self) -> None:
        """End the worker and release the renderer; shared memory goes with its last user."""
        super().close()
        self._worker.close()
