"""NVIDIA's Isaac Gym Preview 4, the user's own installation: PhysX on thousands of environments on a GPU.

Isaac Gym exists for Python 3.6 to 3.8 only, so it runs in a process of its own (``worker.py``), which copies its
tensors to memory that both processes map; everything is computed here, with today's torch. A crash of the simulator
cannot end the learner, and several simulations can run side by side.

Not verified with a real Isaac Gym yet: its documented behaviour is what ``tests/sim/fake_isaacgym`` enforces.
"""

from pathlib import Path

import mujoco
import torch
from torch import Tensor

from dima_isaac.errors import SimulationError, UsageError
from dima_isaac.sim.base import BaseEngine
from dima_isaac.sim.compiled import compile_scene
from dima_isaac.sim.config import IsaacGymConfig, PhysicsConfig, Pipeline
from dima_isaac.sim.engine import FRAME, MAX_SPEED, Capabilities
from dima_isaac.sim.isaacgym.description import TensorOrder, describe, tensor_order
from dima_isaac.sim.isaacgym.process import WorkerProcess, interpreter
from dima_isaac.sim.isaacgym.shared_memory import SharedTensors
from dima_isaac.sim.rotations import quat_conj, quat_div, rotate
from dima_isaac.sim.scene import Scene
from dima_isaac.sim.variation import varies

START_TIMEOUT = 600.0  # s that each part of the start may take: kernels are compiled for a GPU newer than Isaac Gym
STEP_TIMEOUT = 60.0  # s that one step may take
_DROP = 10.0  # m


class IsaacGymEngine(BaseEngine):
    """The Isaac Gym engine; see ``Engine`` for the contract.

    Isaac Gym has no forward kinematics without a step, cannot hold single environments, and takes one call of each
    setter per step. So writes are collected here and submitted just before the step. A held environment is put back to
    its start after the step and once more before the next; its roots and joints are reported as they were put, its
    links are one step old. Every control step waits for the device before the command is sent to the other process.

    ``force_sensor`` is PhysX's force and torque on the link, of dynamics and constraints, in the link's axes;
    ``dof_force`` its joint force of drives and constraints.
    """

    def __init__(self, scene: Scene, num_envs: int, cfg: IsaacGymConfig, device: torch.device) -> None:
        """Start the worker, build ``scene`` there and see a step of it.

        Raises:
            UsageError: no interpreter, or a scene with what Isaac Gym does not have.
            WorkerError: Isaac Gym did not start; its last messages are in the error.
            SimulationError: an object that should fall did not.
        """
        if scene.world:
            raise UsageError(f"engine=isaacgym has no robots of {Path(scene.world).name}; use engine=mujoco.")
        if varies(scene):
            raise UsageError("engine=isaacgym does not randomise yet; use engine=mujoco or mujoco_warp.")
        self.cfg = cfg
        compiled = compile_scene(scene, PhysicsConfig(), sensors=False)
        seen_on = device if cfg.pipeline is Pipeline.gpu else torch.device("cpu")
        super().__init__(scene, compiled, num_envs, seen_on, scene.control_dt, cfg.substeps)
        self.capabilities = Capabilities(deterministic=False, on_host=seen_on.type == "cpu", viewer=True)
        self._worker = WorkerProcess(interpreter(cfg))
        try:
            self._allocate(self._create(device))
            self._start()
        except BaseException:
            self.close()
            raise
        finally:
            self._worker.remove_folder()

    # ---- construction ------------------------------------------------------------------------------------------

    def _create(self, device: torch.device) -> TensorOrder:
        """Have the worker build the scene on ``device``, and share memory with it."""
        command = {"do": "create", "device": str(device), "num_envs": self.num_envs}
        command |= {"gpu_pipeline": self.device.type == "cuda"}
        command |= describe(self.scene, self._compiled, self.cfg, self._worker.folder)
        found = self._worker.call(command, START_TIMEOUT)
        order = tensor_order(self.scene, self._compiled, found["links"], found["joints"])
        e, a, d, b, s = self.num_envs, len(self.actor_names), len(order.dofs), order.bodies, len(order.sensors)
        written: dict[str, tuple[int, ...]] = {
            **{"next_root": (e, a, FRAME), "root_ids": (e, a), "next_dof": (e, d, 2), "dof_ids": (e, a)},
            **{"target": (e, d), "force": (e, b, 3), "torque": (e, b, 3)},
        }
        read = {
            **{"root": (e, a, FRAME), "body": (e, b, FRAME), "dof": (e, d, 2), "dof_force": (e, d)},
            **{"sensor": (e, s, 6)},
        }
        memory = SharedTensors({**written, **read}, self.device)
        try:
            self._worker.call({"do": "share", **memory.description}, START_TIMEOUT)
        finally:  # both processes have opened it: if they are killed, no file is left behind
            memory.unlink()
        self._gym = memory.tensors
        return order

    def _allocate(self, order: TensorOrder) -> None:
        """Allocate the views and what is to be written, and turn ``order`` into index tensors."""
        e, device = self.num_envs, self.device

        def index(places: list[int]) -> Tensor:
            return torch.tensor(places, dtype=torch.int64, device=device)

        self._link_index, self._dof_index, self._sensor_index = map(index, (order.links, order.dofs, order.sensors))
        self._target_index = self._dof_index[self.actuator_dofs]
        self._wrench_index = order.wrenches
        turns = torch.tensor(order.roots, device=device).view(-1, 4)
        self._unturn = None if bool((turns[:, 3].abs() == 1.0).all()) else quat_conj(turns)
        self._moves = torch.tensor(self._movable, device=device)
        owners = {name.partition("/")[0] for name in self.dof_names}
        self._jointed = torch.tensor([name in owners for name in self.actor_names], device=device)
        numbers = torch.arange(e * len(self.actor_names), dtype=torch.int32, device=device)
        self._numbers = numbers.view(e, -1)

        poses = torch.tensor([[*actor.pos, *actor.quat] + [0.0] * 6 for actor in self.scene.actors], device=device)
        self._root_start = poses.expand(e, -1, -1).clone()
        self._dof_start = torch.zeros(e, len(order.dofs), 2, device=device)
        self.root_state, self._dof = self._root_start.clone(), self._dof_start.clone()
        self.dof_pos, self.dof_vel = self._dof.unbind(-1)
        self.dof_force = torch.zeros_like(self.dof_pos)
        self.body_state = torch.zeros(e, len(order.links), FRAME, device=device)
        self.force_sensor = torch.zeros(e, len(order.sensors), 6, device=device)
        self.bad = torch.zeros(e, dtype=torch.bool, device=device)
        self._nonfinite, self._broken_runs = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))

        self._next_root, self._next_dof = self._root_start.clone(), self._dof_start.clone()
        self._root_pending = torch.zeros_like(self._numbers, dtype=torch.bool)
        self._dof_pending = torch.zeros_like(self.bad)
        self._target = torch.zeros(self._target_shape, device=device)
        self._pushed = False

    def _start(self) -> None:
        """Drop what should fall, because an importer may fix a root; then put everything to its start.

        Raises:
            SimulationError: something stayed where it was.
        """
        everywhere = torch.ones_like(self.bad)
        self._report()
        self._body_start = self.body_state.clone()
        expected = self.scene.gravity[2] * self.control_dt
        falling = [i for i, actor in enumerate(self.scene.actors) if actor.free and actor.gravity and expected < 0.0]
        self._place(everywhere, self._root_start, self._dof_start)
        for i in falling:
            self._next_root[:, i, 2] += _DROP * (i + 1)  # apart from everything
        self._simulate(START_TIMEOUT)
        speeds = self._gym["root"][0, :, 9].tolist()
        for i in falling:
            if not speeds[i] <= 0.5 * expected:
                raise SimulationError(
                    f"Isaac Gym does not let '{self.actor_names[i]}' fall: dropped, it has {speeds[i]:.3g} m/s after a"
                    f" step, not {expected:.3g}, so its importer may have fixed it. Use engine=mujoco or mujoco_warp."
                )
        self._place(everywhere, self._root_start, self._dof_start)
        self._show(everywhere, self._root_start, self._dof_start, self._body_start)

    # ---- staged writes -----------------------------------------------------------------------------------------

    def _stage_target(self, target: Tensor) -> None:
        self._target.copy_(target)

    def _stage_force(self, actor: int, force: Tensor, torque: Tensor) -> None:
        self._gym["force"][:, self._wrench_index[actor]] = force
        self._gym["torque"][:, self._wrench_index[actor]] = torque
        self._pushed = True

    def _stage_root(self, mask: Tensor, actor: int, state: Tensor) -> None:
        size = 7 if self.scene.actors[actor].marker else FRAME
        staged = self._next_root[:, actor, :size]
        staged.copy_(torch.where(mask[:, None], state[:, :size], staged))
        self._root_pending[:, actor] |= mask

    def set_dof_state(self, mask: Tensor, pos: Tensor, vel: Tensor) -> None:
        state = torch.stack([pos, vel], -1)
        self._next_dof.copy_(torch.where(mask[:, None, None], state, self._next_dof))
        self._dof_pending |= mask

    def _place(self, mask: Tensor, root: Tensor, dof: Tensor) -> None:
        """Start the next step from ``root`` and ``dof`` where ``mask`` (E,)."""
        here = mask[:, None, None]
        self._next_root.copy_(torch.where(here, root, self._next_root))
        self._next_dof.copy_(torch.where(here, dof, self._next_dof))
        self._root_pending |= mask[:, None] & self._moves
        self._dof_pending |= mask

    def _next_state(self) -> tuple[Tensor, Tensor]:
        """Roots and joints at the start of the next step: what is pending, else what was last reported."""
        root = torch.where(self._root_pending[..., None], self._next_root, self.root_state)
        return root, torch.where(self._dof_pending[:, None, None], self._next_dof, self._dof)

    # ---- time --------------------------------------------------------------------------------------------------

    def step(self, hold: Tensor) -> None:
        """Flush, advance one control step except where ``hold`` (E,), and bring every view up to date.

        Held environments take the staged writes; their links are shown one step later than their joints.

        Raises:
            WorkerError: Isaac Gym died, failed, or did not answer in time.
        """
        root, dof = self._next_state()
        self._simulate(STEP_TIMEOUT)
        self._report()
        self._reset_broken(hold)
        self._show(hold, root, dof, self.body_state)
        self._place(hold, root, dof)

    def refresh(self, mask: Tensor) -> None:
        """Flush and bring roots and joints of ``mask`` (E,) up to date; its links are shown as they were authored."""
        self._show(mask, *self._next_state(), self._body_start)

    def _simulate(self, timeout: float) -> None:
        """Submit everything pending and have the worker advance all environments by one control step."""
        gym = self._gym
        gym["next_root"].copy_(self._next_root)
        gym["next_dof"][:, self._dof_index] = self._next_dof
        gym["target"][:, self._target_index] = self._target
        pending = {"root": self._root_pending, "dof": self._dof_pending[:, None] & self._jointed}
        counts = {}
        for name, mask in pending.items():
            numbers = self._numbers[mask]
            gym[f"{name}_ids"].view(torch.int32).view(-1)[: len(numbers)] = numbers
            counts[f"{name}s"] = len(numbers)
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # the other process has no part in our stream
        self._worker.call({"do": "step", **counts, "wrenches": self._pushed}, timeout)
        self._root_pending.zero_()
        self._dof_pending.zero_()
        self._clear_forces()

    def _clear_forces(self) -> None:
        if self._pushed:
            self._gym["force"].zero_()
            self._gym["torque"].zero_()
            self._pushed = False

    def _report(self) -> None:
        """Show Isaac Gym's tensors in the scene's order; positions are local and velocities at the COM in both."""
        gym = self._gym
        self.root_state.copy_(torch.where(self._moves[:, None], gym["root"], self._root_start))
        self.body_state.copy_(gym["body"][:, self._link_index])
        if self._unturn is not None:
            self.body_state[..., 3:7] = quat_div(self.body_state[..., 3:7], self._unturn)
        self._dof.copy_(gym["dof"][:, self._dof_index])
        self.dof_force.copy_(gym["dof_force"][:, self._dof_index])
        self.force_sensor.copy_(gym["sensor"][:, self._sensor_index])

    def _show(self, mask: Tensor, root: Tensor, dof: Tensor, body: Tensor) -> None:
        """Show this state where ``mask`` (E,), without forces."""
        here = mask[:, None, None]
        # selected, not multiplied by zero: NaN times zero is NaN
        for view, state in ((self.root_state, root), (self._dof, dof), (self.body_state, body)):
            view.copy_(torch.where(here, state, view))
        self.dof_force.masked_fill_(mask[:, None], 0.0)
        self.force_sensor.masked_fill_(here, 0.0)

    def _reset_broken(self, hold: Tensor) -> None:
        """Flag environments that are not finite, or too fast; they start the next step as they were authored."""
        views = (self.root_state, self.body_state, self._dof, self.dof_force, self.force_sensor)
        finite = torch.cat([view.flatten(1).isfinite() for view in views], 1).all(1)
        speed = torch.cat([self.root_state[..., 7:].flatten(1), self.dof_vel], 1).abs().amax(1)
        torch.logical_not(finite & (hold | (speed <= MAX_SPEED)), out=self.bad)
        self._nonfinite += self.bad.sum()
        self._broken_runs.copy_(torch.where(self.bad.all(), self._broken_runs + 1, 0))
        self._place(self.bad, self._root_start, self._dof_start)
        self._show(self.bad, self._root_start, self._dof_start, self._body_start)

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
        views = {"root": self.root_state, "body": self.body_state, "dof": self._dof, "dof_force": self.dof_force}
        counters = {"bad": self.bad, "nonfinite": self._nonfinite, "broken_runs": self._broken_runs}
        return {**views, "sensor": self.force_sensor, "target": self._target, **counters}

    def _before_load(self, state: dict[str, Tensor]) -> None:
        """Have the next step start from the loaded roots and joints."""
        everywhere = torch.ones_like(self.bad)
        self._place(everywhere, state["root"].to(self.device), state["dof"].to(self.device))
        self._clear_forces()

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
