"""MuJoCo-Warp: E worlds of the model that the CPU engine simulates, on one GPU, as one captured graph per control step.

The graph applies staged writes, saves the held worlds, runs k physics steps, restores the held worlds, refreshes
the kinematics (positions and velocities only), packs the views and counts what went wrong. ``step`` copies the mask
and launches it; nothing in there waits for the device. The staging buffers are plain tensors that
torch writes between launches. On Warp's CPU device the same graph is replayed by a loop in C++, slowly.

Order of torch and Warp: the graph is launched on torch's current stream, so it runs after the writes and before the
reads that the caller issues there; no event and no wait is needed, but a caller that changes streams has to order
them, as between any two torch operations. Construction ends with the only synchronisation.

float32 throughout, raw fields too: a position of 100 m is known to 8e-6 m. Everything is refreshed at the new state
except joint forces and contact forces, which belong to the last physics step; contact torques are about the refreshed
link origin.
"""

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mujoco
import torch
from torch import Tensor

from dima_isaac.errors import UsageError
from dima_isaac.sim.base import BaseEngine
from dima_isaac.sim.compiled import STATE_FIELDS, compile_scene
from dima_isaac.sim.config import MujocoWarpConfig
from dima_isaac.sim.engine import FRAME, MAX_SPEED, Capabilities
from dima_isaac.sim.scene import Scene

try:
    import mujoco_warp as mjw
    import warp as wp
except ImportError as error:
    raise UsageError(f"engine=mujoco_warp needs {error.name}; pip install 'dima-isaac[gpu]'.") from error

from dima_isaac.sim.warp import bindings, state_kernels, view_kernels
from dima_isaac.sim.warp.bindings import rows, struct
from dima_isaac.sim.warp.model import make_model

_LOG = logging.getLogger(__name__)
_KIND = mjw.OverflowType
_FULL_BITS = int(_KIND.NEFC | _KIND.NJMAX_NNZ | _KIND.BROADPHASE | _KIND.NARROWPHASE | _KIND.CCD | _KIND.EPA_HORIZON)
_CAPPED_BITS = int(_KIND.ITERATIONS | _KIND.LS_ITERATIONS)


class MujocoWarpEngine(BaseEngine):
    """The GPU engine; see ``Engine`` for the contract.

    ``force_sensor`` is the net contact wrench on the link during the last physics step, about the link's origin;
    ``dof_force`` the force of the position drive in that step, joint damping not included.
    """

    _settable = STATE_FIELDS

    def __init__(self, scene: Scene, num_envs: int, cfg: MujocoWarpConfig, device: torch.device | None = None) -> None:
        """Compile ``scene``, put ``num_envs`` worlds of it on ``device`` and capture the step.

        The first construction on a machine compiles kernels, which takes minutes; they are cached on disk.

        Raises:
            UsageError: a scene that names what it does not have, or uses what MuJoCo-Warp cannot simulate, or a
                driver that is too old for Warp.
        """
        self.cfg = cfg
        device = device or torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        wp.config.log_level = wp.LOG_ERROR  # Warp would print its devices and every kernel that it compiles
        wp.init()
        if device.type == "cuda":
            _check_driver()
            device = torch.device("cuda", device.index or 0)  # Warp identifies a GPU by its number only
        compiled = compile_scene(scene, cfg, sensors=False)
        model = self.model = compiled.model
        substeps = scene.frame_skip if scene.world else cfg.steps
        super().__init__(scene, compiled, num_envs, device, model.opt.timestep * substeps, substeps)
        self.capabilities = Capabilities(
            # atomic operations sum contact forces on sensors, in no fixed order
            deterministic=device.type == "cpu" or (cfg.deterministic and not scene.force_sensors),
            on_host=False,  # also on Warp's CPU device: callers take the path that never reads a number
            viewer=True,
        )
        kernel_files = "*mujoco_warp*/*.sm*" if device.type == "cuda" else "*mujoco_warp*"
        if not any(Path(wp.config.kernel_cache_dir).glob(kernel_files)):
            _LOG.warning("compiling MuJoCo-Warp's kernels, once per machine: this takes minutes")
        self._warp_device = wp.device_from_torch(device)
        self._streams: dict[int, Any] = {}
        with wp.ScopedDevice(self._warp_device):
            self._m, self._d = make_model(scene, compiled, num_envs, cfg)
            self._allocate()
            self._bind()
            self._step_graph = self._captured(self._step_kernels)
            self._refresh_graph = self._captured(self._refresh_kernels)
            wp.synchronize_device()
        everywhere = torch.ones(num_envs, dtype=torch.bool, device=device)
        # the first launch of a graph sets it up; held everywhere it moves nothing
        self.step(everywhere)
        self.refresh(everywhere)
        for tensor in (self._totals, self._still):
            tensor.zero_()

    # ---- construction ------------------------------------------------------------------------------------------

    def _tensor(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(self.num_envs, *shape, dtype=dtype, device=self.device)

    def _allocate(self) -> None:
        """Views, staging buffers and counters, as tensors whose memory Warp shares."""
        compiled, envs = self._compiled, self.num_envs
        links, actors, dofs = len(compiled.link_names), len(compiled.actor_names), len(compiled.dof_names)
        sensors = len(self.scene.force_sensors)
        self._frames = self._tensor(links + actors, FRAME)
        self.body_state, self.root_state = self._frames[:, : len(self.link_names)], self._frames[:, links:]
        self.dof_pos, self.dof_vel, self.dof_force = (self._tensor(dofs) for _ in range(3))
        self.force_sensor, self._wrenches = self._tensor(sensors, 6), self._tensor(sensors, 6)
        flag = torch.bool
        self.bad, self._still, self._broken = (self._tensor(dtype=flag) for _ in range(3))
        self._chosen, self._dof_mask = self._tensor(dtype=flag), self._tensor(dtype=flag)
        self._dof_stage = self._tensor(dofs), self._tensor(dofs)
        self._root_mask = torch.zeros(actors, envs, dtype=flag, device=self.device)
        self._root_stage = torch.zeros(actors, envs, FRAME, device=self.device)
        self._target = self._tensor(self.model.nu)
        self._totals = torch.zeros(4, dtype=torch.int64, device=self.device)
        self._xfrc = wp.to_torch(self._d.xfrc_applied)
        self._fields = {name: torch.empty_like(self._live(name)) for name in self.scene.fields if self._raw}
        self._field_mask = {name: self._tensor(dtype=flag) for name in self._settable}
        self._field_stage = {name: torch.zeros_like(self._live(name)) for name in self._settable}

    def _live(self, name: str) -> Tensor:
        """MuJoCo-Warp's own array as a tensor (E, ...)."""
        array = getattr(self._d, name, None)
        if not isinstance(array, wp.array):
            raise UsageError(f"MuJoCo-Warp has no field '{name}'; engine=mujoco has.")
        if not array.size:  # a GPU has no address for nothing
            return torch.zeros(*array.shape, *getattr(array.dtype, "_shape_", ()), device=self.device)
        return wp.to_torch(array)

    def _bind(self) -> None:
        """Warp's side of every buffer, grouped as the kernels take them."""
        d, compiled = self._d, self._compiled
        self._state = struct(state_kernels.State, d)
        changed = {name: wp.clone(getattr(d, name)) for name in ("qpos", "qvel", "act", "qacc_warmstart", "time")}
        self._saved_state = struct(state_kernels.State, d, **changed)
        self._inputs = struct(state_kernels.Inputs, d)
        bodies = bindings.mocap_bodies(self.model)
        self._defaults = struct(state_kernels.Defaults, self._m, mocap_body=bodies, max_speed=MAX_SPEED)
        self._addresses = struct(state_kernels.Addresses, compiled)
        self._staged = struct(
            state_kernels.Staged,
            target=self._target,
            dof_mask=self._dof_mask,
            dof_pos=self._dof_stage[0],
            dof_vel=self._dof_stage[1],
            root_mask=self._root_mask,
            root=self._root_stage,
            chosen=self._chosen,
            broken=self._broken,
            still=self._still,
        )
        self._counters = struct(state_kernels.Counters, broken=wp.zeros(1, dtype=int), totals=self._totals)
        self._kinematics = struct(view_kernels.Kinematics, d)
        self._wrench_bodies = bindings.index(compiled.wrench_body[compiled.wrench_body >= 0])
        self._bad = wp.from_torch(self.bad)
        self._raw_rows = [(rows(self._live(name)), rows(out)) for name, out in self._fields.items()]
        self._raw_writes = [
            (wp.from_torch(self._field_mask[name]), rows(self._field_stage[name]), rows(self._live(name)))
            for name in self._settable
            if self._field_stage[name].numel() and (self._raw or name in self.scene.fields)
        ]
        if not self._raw:
            self._frame_table = bindings.frames(self.scene, compiled)
            self._sensor_body, self._sensor_of_body = bindings.sensed_bodies(self.scene, compiled)
            self._contact_ids = bindings.index(torch.arange(d.naconmax).numpy())
            wrench = wp.zeros(d.naconmax, dtype=wp.spatial_vector)
            bodies = self.model.geom_bodyid
            self._contacts = struct(view_kernels.Contacts, d.contact, nacon=d.nacon, wrench=wrench, geom_body=bodies)
            self._packed = wp.from_torch(self._frames)
            self._packed_dofs = [wp.from_torch(view) for view in (self.dof_pos, self.dof_vel, self.dof_force)]
            self._packed_wrenches = [wp.from_torch(self._wrenches), wp.from_torch(self.force_sensor)]

    def _captured(self, launch: Callable[[], None]) -> Any:
        """The graph of ``launch``. It runs once first, held everywhere, so that every kernel is compiled and loaded."""
        self._chosen.fill_(True)
        if self._warp_device.is_cuda:
            torch.cuda.synchronize(self.device)
        launch()
        with _no_garbage_collection(), wp.ScopedCapture(device=self._warp_device) as capture:
            launch()
        return capture.graph

    # ---- the graphs --------------------------------------------------------------------------------------------

    def _step_kernels(self) -> None:
        envs = self.num_envs
        check = [self._state, self._inputs, self._staged, self._defaults]
        self._apply_staged()
        wp.launch(state_kernels.reset_broken, envs, check)
        wp.launch(state_kernels.save_held, envs, [self._state, self._saved_state, self._staged])
        for _ in range(self.substeps):
            mjw.step(self._m, self._d)
            wp.launch(state_kernels.reset_broken, envs, check)
        if self._raw:
            self._pack_raw(wanted=False)
        wp.launch(
            state_kernels.restore_held,
            envs,
            [self._state, self._saved_state, self._inputs, self._staged, self._bad, self._wrench_bodies],
        )
        if self._raw:
            self._forward_raw()
        else:
            self._refresh_views(everywhere=True)
        counted = [self._staged, self._d.overflow, _FULL_BITS, _CAPPED_BITS, self._counters]
        wp.launch(state_kernels.count_failures, envs, counted)
        wp.launch(state_kernels.count_broken_steps, 1, [self._counters, envs])

    def _refresh_kernels(self) -> None:
        self._apply_staged()
        wp.launch(state_kernels.mark_still, self.num_envs, [self._staged])
        if self._raw:
            self._forward_raw()
        else:
            self._refresh_views(everywhere=False)

    def _apply_staged(self) -> None:
        if not self._raw:
            inputs = [self._state, self._inputs, self._staged, self._addresses, self._defaults]
            wp.launch(state_kernels.apply_staged, self.num_envs, inputs)
        else:
            masks = [wp.from_torch(self._field_mask[name]) for name in ("qpos", "qvel")]
            inputs = [self._state, self._inputs, self._staged, self._defaults, *masks]
            wp.launch(state_kernels.restart_written, self.num_envs, inputs)
        for mask, source, target in self._raw_writes:
            wp.launch(state_kernels.copy_rows, source.shape, [mask, True, source, target])
            mask.zero_()

    def _refresh_views(self, everywhere: bool) -> None:
        """Positions and velocities at the present state, then the views, of the chosen worlds or ``everywhere``."""
        m, d, envs = self._m, self._d, self.num_envs
        mjw.kinematics(m, d)
        mjw.com_pos(m, d)
        mjw.com_vel(m, d)
        frames, dofs, sensors = self._frames.shape[1], len(self.dof_names), self.force_sensor.shape[1]
        inputs = [self._frame_table, self._kinematics, self._staged, everywhere, self._packed]
        wp.launch(view_kernels.pack_frames, (envs, frames), inputs)
        wp.launch(
            view_kernels.pack_dofs,
            (envs, dofs),
            [self._state, d.qfrc_actuator, self._addresses, self._staged, everywhere, *self._packed_dofs],
        )
        if not sensors:
            return
        total, out = self._packed_wrenches
        total.zero_()
        mjw.contact_force(m, d, self._contact_ids, True, self._contacts.wrench)
        wp.launch(
            view_kernels.sum_contacts, d.naconmax, [self._contacts, self._sensor_of_body, self._kinematics, total]
        )
        inputs = [total, self._sensor_body, self._kinematics, self._staged, everywhere, out]
        wp.launch(view_kernels.pack_wrenches, (envs, sensors), inputs)

    def _forward_raw(self) -> None:
        """Raw fields of the chosen worlds by forward dynamics; the others keep what the last physics step left.

        Contact forces are a step's, as in Gymnasium: there are none after a start.
        """
        mjw.forward(self._m, self._d)
        if self._m.opt.run_rne_postconstraint:
            self._d.cfrc_ext.zero_()
        self._pack_raw(wanted=True)

    def _pack_raw(self, wanted: bool) -> None:
        for source, target in self._raw_rows:
            wp.launch(state_kernels.copy_rows, source.shape, [self._staged.chosen, wanted, source, target])

    def _launch(self, graph: Any) -> None:
        if not self._warp_device.is_cuda:
            wp.capture_launch(graph)
            return
        current = torch.cuda.current_stream(self.device)
        if current.cuda_stream not in self._streams:
            self._streams[current.cuda_stream] = wp.stream_from_torch(current)
        with torch.cuda.device(self.device):  # the default stream has no name: it is that of the current GPU
            wp.capture_launch(graph, stream=self._streams[current.cuda_stream])

    # ---- staged writes -----------------------------------------------------------------------------------------

    def _stage_target(self, target: Tensor) -> None:
        self._target.copy_(target)

    def _stage_force(self, actor: int, force: Tensor, torque: Tensor) -> None:
        body = self._wrench_body[actor]
        push, turn = self._compiled.wrench_share[actor]
        torch.mul(force, push, out=self._xfrc[:, body, :3])
        torch.mul(torque, turn, out=self._xfrc[:, body, 3:])

    def _stage_root(self, mask: Tensor, actor: int, state: Tensor) -> None:
        _stage(self._root_mask[actor], self._root_stage[actor], mask, state)

    def set_dof_state(self, mask: Tensor, pos: Tensor, vel: Tensor) -> None:
        for stage, value in zip(self._dof_stage, (pos, vel), strict=True):
            _stage(self._dof_mask, stage, mask, value)

    def _stage_field(self, mask: Tensor, name: str, value: Tensor) -> None:
        _stage(self._field_mask[name], self._field_stage[name], mask, value)

    # ---- time --------------------------------------------------------------------------------------------------

    def step(self, hold: Tensor) -> None:
        """See ``Engine``; what turned non-finite is reset to defaults before it can touch the shared buffers."""
        self._chosen.copy_(hold)
        self._launch(self._step_graph)

    def refresh(self, mask: Tensor) -> None:
        self._chosen.copy_(mask)
        self._launch(self._refresh_graph)

    # ---- the rest ----------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Tensor]:
        """Counters since construction: environments found ``nonfinite``, steps of environments with full contact or
        constraint buffers (``contact_overflow``: raise engine.nconmax or engine.njmax), and with the solver at its
        iteration cap (``solver_capped``).

        Reads one number from the device.

        Raises:
            SimulationError: every environment broke many steps in a row.
        """
        self._check_broken(int(self._totals[3]))
        nonfinite, full, capped, _ = self._totals.clone().unbind()
        return {"nonfinite": nonfinite, "contact_overflow": full, "solver_capped": capped}

    def _saved(self) -> dict[str, Tensor]:
        live = (*self._settable, "qacc_warmstart", "time")
        return {
            **{name: self._live(name) for name in live},
            **{"frames": self._frames, "dof_pos": self.dof_pos, "dof_vel": self.dof_vel, "dof_force": self.dof_force},
            **{"force_sensor": self.force_sensor, "bad": self.bad, "still": self._still, "target": self._target},
            "totals": self._totals,
            **{f"field/{name}": value for name, value in self._fields.items()},
        }

    def _before_load(self, state: dict[str, Tensor]) -> None:
        for mask in (self._dof_mask, self._root_mask, *self._field_mask.values()):
            mask.zero_()

    def copy_env(self, env: int, data: mujoco.MjData) -> None:
        for name in ("qpos", "qvel", "mocap_pos", "mocap_quat"):
            getattr(data, name)[:] = self._live(name)[env].cpu().numpy()


def _stage(flags: Tensor, buffer: Tensor, mask: Tensor, value: Tensor) -> None:
    """Write the rows of ``mask`` (E,) into ``buffer`` (E, ...) and set their ``flags``."""
    flags.logical_or_(mask)
    chosen = mask.view(-1, *[1] * (buffer.dim() - 1))
    torch.where(chosen, value.to(buffer.dtype), buffer, out=buffer)


def _check_driver() -> None:
    """Torch may find a GPU where Warp does not: each needs the driver of its own CUDA version."""
    if not wp.is_cuda_available():
        built = ".".join(map(str, wp.get_cuda_toolkit_version() or ("none",)))
        raise UsageError(
            f"torch sees a GPU, but warp-lang {wp.__version__} does not: it is built for CUDA {built}, so look for a"
            " driver of that CUDA version (nvidia-smi shows yours), or take a warp-lang of an older CUDA;"
            " engine=mujoco simulates on the CPU meanwhile."
        )


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection during a capture may free device memory, which would be captured too."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
