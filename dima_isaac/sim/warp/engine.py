"""MuJoCo-Warp: E worlds of the model that the CPU engine simulates, on one GPU, as one captured graph per control step.

The graph places what is staged, remembers the held worlds, runs k physics steps, puts the held worlds back, refreshes
the kinematics (positions and velocities only), packs the views and counts what went wrong. ``step`` copies the mask
and launches it; nothing in there waits for the device. The staging buffers are plain tensors that
torch writes between launches. On Warp's CPU device the same graph is replayed by a loop in C++, slowly.

Order of torch and Warp: the graph is launched on torch's current stream, so it runs after the writes and before the
reads that the caller issues there; no event and no wait is needed, and a caller who changes streams owes the same
care as between any two torch operations. Construction ends with the only synchronisation.

float32 throughout, raw fields too: a position of 100 m is known to 8e-6 m. Everything is refreshed at the new state
except joint forces and contact forces, which belong to the last physics step; contact torques are about the refreshed
link origin.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from dima_isaac.errors import SimulationError, UsageError
from dima_isaac.sim.compiled import Compiled, compile_scene
from dima_isaac.sim.config import MujocoWarpConfig
from dima_isaac.sim.engine import Capabilities, check_shapes
from dima_isaac.sim.model import FRAME, link_body
from dima_isaac.sim.render import Drawn
from dima_isaac.sim.scene import Scene
from dima_isaac.sim.variation import expanded_fields, varies

try:
    import mujoco_warp as mjw
    import warp as wp
except ImportError as error:
    raise UsageError(f"engine=mujoco_warp needs {error.name}; pip install 'dima-isaac[gpu]'.") from error

from dima_isaac.sim.warp import kernels

_LOG = logging.getLogger(__name__)
_FULL = mjw.OverflowType
_FULL_BITS = int(_FULL.NEFC | _FULL.NJMAX_NNZ | _FULL.BROADPHASE | _FULL.NARROWPHASE | _FULL.CCD | _FULL.EPA_HORIZON)
_CAPPED_BITS = int(_FULL.ITERATIONS | _FULL.LS_ITERATIONS)
_HOPELESS = 10  # control steps in a row with every world broken before ``stats`` gives up
_HUGE = 1e10  # raw scenes have no limit of speed but MuJoCo's own
_SETTABLE = ("qpos", "qvel", "act", "ctrl", "qfrc_applied", "xfrc_applied", "mocap_pos", "mocap_quat")
_UNBATCHED = {"dof_length"}  # only sleep, which is off here, reads it
_LEAST_CONTACTS = 16
_STATE = ("qpos", "qvel", "act", "qacc_warmstart", "time", "ctrl", "qfrc_applied", "xfrc_applied")
_MOCAP = ("mocap_pos", "mocap_quat")


class MujocoWarpEngine(Drawn):
    """The GPU engine; see ``Engine`` for the contract."""

    def __init__(self, scene: Scene, num_envs: int, cfg: MujocoWarpConfig, device: torch.device | None = None) -> None:
        """Compile ``scene``, put ``num_envs`` worlds of it on ``device`` and capture the step.

        The first construction on a machine compiles kernels, which takes minutes; they are cached on disk.

        Raises:
            UsageError: a scene that names what it does not have, or uses what MuJoCo-Warp cannot simulate, or a
                driver that is too old for Warp.
        """
        self.cfg, self.scene, self.num_envs = cfg, scene, num_envs
        self.device = device or torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        wp.config.log_level = wp.LOG_ERROR  # Warp would print its devices and every kernel that it compiles
        wp.init()
        if self.device.type == "cuda":
            _check_driver()
            self.device = torch.device("cuda", self.device.index or 0)  # Warp knows a GPU by its number only
        on_host = self.device.type == "cpu"
        self.capabilities = Capabilities(
            # contact forces on sensors are summed by atomic operations of ours, in no fixed order
            deterministic=on_host or (cfg.deterministic and not scene.force_sensors),
            fresh_after_reset=True,
            force_sensor="net contact wrench on the link during the last physics step, about the link origin, link "
            "axes",
            dof_force="force of the position drive during the last physics step (joint damping not included)",
            on_host=False,  # also on Warp's CPU device: callers take the path that never asks for a number
        )
        self._raw = bool(scene.world)
        compiled = self._compiled = compile_scene(scene, cfg, sensors=False)
        self.model = compiled.model
        self.substeps = scene.frame_skip if self._raw else cfg.steps
        self.control_dt = self.model.opt.timestep * self.substeps
        self.actor_names, self.link_names = compiled.actor_names, compiled.link_names[: len(scene.links)]
        self.dof_names = compiled.dof_names
        self.actuator_dofs = torch.from_numpy(compiled.actuator_dofs).to(self.device)
        self.dof_lower = torch.from_numpy(compiled.dof_lower).float().to(self.device)
        self.dof_upper = torch.from_numpy(compiled.dof_upper).float().to(self.device)
        compiled_here = "*mujoco_warp*/*.sm*" if self.device.type == "cuda" else "*mujoco_warp*"
        if not any(Path(wp.config.kernel_cache_dir).glob(compiled_here)):
            _LOG.warning("compiling MuJoCo-Warp's kernels, once per machine: this takes minutes")
        self._warp_device = wp.device_from_torch(self.device)
        self._streams: dict[int, Any] = {}
        with wp.ScopedDevice(self._warp_device):
            self._build()
            self._allocate()
            self._bind()
            self._step_graph = self._captured(self._step_kernels)
            self._refresh_graph = self._captured(self._refresh_kernels)
            wp.synchronize_device()
        everywhere = torch.ones(num_envs, dtype=torch.bool, device=self.device)
        # the first launch of a graph sets it up; held everywhere it moves nothing
        self.step(everywhere)
        self.refresh(everywhere)
        for tensor in (self._totals, self._still):
            tensor.zero_()

    # ---- construction ------------------------------------------------------------------------------------------

    def _build(self) -> None:
        """MuJoCo-Warp's model and data."""
        if not self._raw:
            self.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_SENSOR)  # the views are packed here
        if self.model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:  # not there; Newton minimises the same cost
            self.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        own = expanded_fields(self.scene, self._compiled, self.num_envs) if varies(self.scene) else {}
        batched = {field.name for field in dataclasses.fields(mjw.Model)} & own.keys()
        batched -= _UNBATCHED
        try:
            self._m = mjw.put_model(self.model, batch_sizes={name: self.num_envs for name in batched})
        except (NotImplementedError, ValueError) as error:
            reason = str(error).rstrip(".")
            raise UsageError(f"MuJoCo-Warp cannot simulate this scene: {reason}. engine=mujoco can.") from error
        for name in batched:
            array = getattr(self._m, name)
            array.assign(own[name].astype(np.float32).reshape(array.numpy().shape))
        option = self._m.opt
        if "opt.gravity" in own:
            option.gravity = wp.array(own["opt.gravity"], dtype=wp.vec3)
        option.warn_overflow = 0  # counted in ``stats``; a print from the device would serialise it
        option.deterministic = int(mjw.DeterminismType.ALL) if self.cfg.deterministic else 0
        option.graph_conditional = not self._warp_device.is_cuda or wp.is_conditional_graph_supported()
        option.run_rne_postconstraint = "cfrc_ext" in self.scene.fields
        contacts = self.cfg.nconmax or contact_buffer(self.model)
        rows = self.cfg.njmax or row_buffer(self.model, contacts)
        self._d = mjw.make_data(self.model, nworld=self.num_envs, nconmax=contacts, njmax=rows)

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
        self._fields = {name: torch.empty_like(self._live(name)) for name in self.scene.fields}
        self._field_mask = {name: self._tensor(dtype=flag) for name in _SETTABLE}
        self._field_stage = {name: torch.zeros_like(self._live(name)) for name in _SETTABLE}

    def _live(self, name: str) -> Tensor:
        """MuJoCo-Warp's own array as a tensor (E, ...).

        Raises:
            UsageError: it has none of that name.
        """
        array = getattr(self._d, name, None)
        if not isinstance(array, wp.array):
            raise UsageError(f"MuJoCo-Warp has no field '{name}'; engine=mujoco has.")
        if not array.size:  # a GPU has no address for nothing
            return torch.zeros(*array.shape, *getattr(array.dtype, "_shape_", ()), device=self.device)
        return wp.to_torch(array)

    def _bind(self) -> None:
        """Warp's side of every buffer, grouped as the kernels want it."""
        d, m, compiled = self._d, self._m, self._compiled
        self._state = _struct(
            kernels.State,
            qpos=d.qpos,
            qvel=d.qvel,
            act=d.act,
            warmstart=d.qacc_warmstart,
            time=d.time,
            mocap_pos=d.mocap_pos,
            mocap_quat=d.mocap_quat,
        )
        self._kept = _struct(
            kernels.State,
            qpos=wp.clone(d.qpos),
            qvel=wp.clone(d.qvel),
            act=wp.clone(d.act),
            warmstart=wp.clone(d.qacc_warmstart),
            time=wp.clone(d.time),
            mocap_pos=d.mocap_pos,
            mocap_quat=d.mocap_quat,
        )
        self._inputs = _struct(kernels.Inputs, ctrl=d.ctrl, qfrc=d.qfrc_applied, xfrc=d.xfrc_applied)
        mocap = np.flatnonzero(self.model.body_mocapid >= 0)
        order = mocap[np.argsort(self.model.body_mocapid[mocap])]
        self._rest = _struct(
            kernels.Rest, qpos=m.qpos0, body_pos=m.body_pos, body_quat=m.body_quat, mocap_body=_index(order)
        )
        self._rest.max_speed = _HUGE if self._raw else self.cfg.max_speed
        self._staged = _struct(
            kernels.Staged,
            target=wp.from_torch(self._target),
            dof_mask=wp.from_torch(self._dof_mask),
            dof_pos=wp.from_torch(self._dof_stage[0]),
            dof_vel=wp.from_torch(self._dof_stage[1]),
            root_mask=wp.from_torch(self._root_mask),
            root=wp.from_torch(self._root_stage),
            chosen=wp.from_torch(self._chosen),
            broken=wp.from_torch(self._broken),
            still=wp.from_torch(self._still),
        )
        self._places = _struct(
            kernels.Places,
            dof_qpos=_index(compiled.dof_qpos),
            dof_qvel=_index(compiled.dof_qvel),
            root_qpos=_index(compiled.root_qpos),
            root_qvel=_index(compiled.root_qvel),
            root_mocap=_index(compiled.root_mocap),
            root_offset=wp.array(compiled.root_offset, dtype=wp.vec3),
            root_com=wp.array(compiled.root_com, dtype=wp.vec3),
        )
        self._counters = _struct(
            kernels.Counters,
            broken=wp.zeros(1, dtype=int),
            full=wp.zeros(1, dtype=int),
            capped=wp.zeros(1, dtype=int),
            totals=wp.from_torch(self._totals),
        )
        self._bodies = _struct(
            kernels.Bodies, xpos=d.xpos, xquat=d.xquat, xipos=d.xipos, cvel=d.cvel, subtree_com=d.subtree_com
        )
        self._wrench_body = _index(compiled.wrench_body[compiled.wrench_body >= 0])
        self._bad = wp.from_torch(self.bad)
        self._raw_rows = [(wp_rows(self._live(name)), wp_rows(out)) for name, out in self._fields.items()]
        self._raw_writes = [
            (wp.from_torch(self._field_mask[name]), wp_rows(self._field_stage[name]), wp_rows(self._live(name)))
            for name in _SETTABLE
            if self._field_stage[name].numel()
        ]
        if not self._raw:
            self._bind_views()

    def _bind_views(self) -> None:
        d, compiled = self._d, self._compiled
        self._frame_table = frame_table(self.scene, compiled)
        names = [compiled.link_names[index] for index in compiled.sensor_links]
        bodies = [self.model.body(link_body(self.scene, name)).id for name in names]
        sensor_of_body = np.full(self.model.nbody, -1)
        sensor_of_body[bodies] = np.arange(len(bodies))
        self._sensor_body, self._sensor_of_body = _index(np.array(bodies, dtype=np.int64)), _index(sensor_of_body)
        self._contact_ids = _index(np.arange(d.naconmax))
        self._contacts = _struct(
            kernels.Contacts,
            count=d.nacon,
            world=d.contact.worldid,
            geom=d.contact.geom,
            pos=d.contact.pos,
            wrench=wp.zeros(d.naconmax, dtype=wp.spatial_vector),
            geom_body=_index(self.model.geom_bodyid),
        )
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
        self._place()
        wp.launch(kernels.guard, envs, [self._state, self._inputs, self._staged, self._rest])
        wp.launch(kernels.keep, envs, [self._state, self._kept, self._staged])
        for _ in range(self.substeps):
            mjw.step(self._m, self._d)
            wp.launch(kernels.guard, envs, [self._state, self._inputs, self._staged, self._rest])
        if self._raw:
            self._pack_raw(wanted=False)
        wp.launch(
            kernels.put_back,
            envs,
            [self._state, self._kept, self._inputs, self._staged, self._bad, self._wrench_body],
        )
        if self._raw:
            self._forward_raw()
        else:
            self._refresh_views(everywhere=True)
        wp.launch(kernels.census, envs, [self._staged, self._d.overflow, _FULL_BITS, _CAPPED_BITS, self._counters])
        wp.launch(kernels.total, 1, [self._counters, envs])

    def _refresh_kernels(self) -> None:
        self._place()
        wp.launch(kernels.add_still, self.num_envs, [self._staged])
        if self._raw:
            self._forward_raw()
        else:
            self._refresh_views(everywhere=False)

    def _place(self) -> None:
        if not self._raw:
            inputs = [self._state, self._inputs, self._staged, self._places, self._rest]
            wp.launch(kernels.place, self.num_envs, inputs)
            return
        masks = [wp.from_torch(self._field_mask[name]) for name in ("qpos", "qvel")]
        wp.launch(kernels.place_raw, self.num_envs, [self._state, self._inputs, self._staged, self._rest, *masks])
        for mask, source, target in self._raw_writes:
            wp.launch(kernels.copy_rows, source.shape, [mask, True, source, target])
            mask.zero_()

    def _refresh_views(self, everywhere: bool) -> None:
        """Positions and velocities at the present state, then the views, of the chosen worlds or ``everywhere``."""
        m, d, envs = self._m, self._d, self.num_envs
        mjw.kinematics(m, d)
        mjw.com_pos(m, d)
        mjw.com_vel(m, d)
        frames, dofs, sensors = self._frames.shape[1], len(self.dof_names), self.force_sensor.shape[1]
        inputs = [self._frame_table, self._bodies, self._staged, everywhere, self._packed]
        wp.launch(kernels.pack_frames, (envs, frames), inputs)
        wp.launch(
            kernels.pack_dofs,
            (envs, dofs),
            [self._state, d.qfrc_actuator, self._places, self._staged, everywhere, *self._packed_dofs],
        )
        if not sensors:
            return
        total, out = self._packed_wrenches
        total.zero_()
        mjw.contact_force(m, d, self._contact_ids, True, self._contacts.wrench)
        wp.launch(kernels.add_contacts, d.naconmax, [self._contacts, self._sensor_of_body, self._bodies, total])
        inputs = [total, self._sensor_body, self._bodies, self._staged, everywhere, out]
        wp.launch(kernels.turn_wrenches, (envs, sensors), inputs)

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
            wp.launch(kernels.copy_rows, source.shape, [self._staged.chosen, wanted, source, target])

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

    def set_dof_target(self, target: Tensor) -> None:
        """Position targets (E, U) for the actuated dofs, held until the next call."""
        if target.shape != self._target.shape:
            raise ValueError(f"targets must be {tuple(self._target.shape)}, not {tuple(target.shape)}")
        self._target.copy_(target)

    def apply_force(self, actor: int, force: Tensor, torque: Tensor) -> None:
        """Force and torque (E, 3) in world axes at the centre of mass of the actor's wrench link, for one step."""
        body = int(self._compiled.wrench_body[actor])
        if body < 0:
            raise ValueError(f"actor '{self.actor_names[actor]}' has no wrench link")
        push, turn = self._compiled.wrench_share[actor]
        torch.mul(force, push, out=self._xfrc[:, body, :3])
        torch.mul(torque, turn, out=self._xfrc[:, body, 3:])

    def set_root_state(self, mask: Tensor, actor: int, state: Tensor) -> None:
        """Write (E, 13) to one actor's root where ``mask`` (E,); markers use the pose only.

        Raises:
            ValueError: a fixed actor.
        """
        if self._compiled.root_qpos[actor] < 0 and self._compiled.root_mocap[actor] < 0:
            raise ValueError(f"actor '{self.actor_names[actor]}' is fixed and cannot be moved")
        _stage(self._root_mask[actor], self._root_stage[actor], mask, state)

    def set_dof_state(self, mask: Tensor, pos: Tensor, vel: Tensor) -> None:
        """Write all dofs (E, dofs) where ``mask`` (E,). Clears what the solver remembers of these environments."""
        for stage, value in zip(self._dof_stage, (pos, vel), strict=True):
            _stage(self._dof_mask, stage, mask, value)

    def field(self, name: str) -> Tensor:
        """The live (E, ...) float32 tensor of one raw field; raises KeyError with those that the scene registered."""
        if name not in self._fields:
            raise KeyError(f"field '{name}' not among {list(self._fields)}")
        return self._fields[name]

    def set_field(self, mask: Tensor, name: str, value: Tensor) -> None:
        """Stage a raw state field (E, ...) where ``mask``; ``qpos`` and ``qvel`` start these environments anew.

        Raises:
            KeyError: not a field that can be written.
        """
        if name not in _SETTABLE:
            raise KeyError(f"field '{name}' cannot be written; these can: {', '.join(_SETTABLE)}")
        _stage(self._field_mask[name], self._field_stage[name], mask, value)

    def constant(self, name: str) -> Tensor:
        """A copy of one raw field of the model, in float64 as MuJoCo holds it."""
        return torch.from_numpy(np.array(getattr(self.model, name))).to(self.device)

    @property
    def body_names(self) -> tuple[str, ...]:
        """Every body of the model, the world first: the axis of raw fields such as ``xpos``."""
        return tuple(self.model.body(i).name for i in range(self.model.nbody))

    # ---- time --------------------------------------------------------------------------------------------------

    def step(self, hold: Tensor) -> None:
        """Flush, advance one control step except where ``hold`` (E,), and bring every view up to date.

        An environment that turned non-finite is put back to the model's defaults before its physics step can touch
        the shared buffers again, and flagged in ``bad``.
        """
        self._chosen.copy_(hold)
        self._launch(self._step_graph)

    def refresh(self, mask: Tensor) -> None:
        """Flush and bring the views of ``mask`` (E,) up to date without advancing time."""
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
        if int(self._totals[3]) >= _HOPELESS:
            raise SimulationError(
                f"all {self.num_envs} environments were non-finite for {_HOPELESS} steps in a row: "
                "are the actions finite?"
            )
        nonfinite, full, capped, _ = self._totals.clone().unbind()
        return {"nonfinite": nonfinite, "contact_overflow": full, "solver_capped": capped}

    def _saved(self) -> dict[str, Tensor]:
        """Every tensor that a continuation needs."""
        out = {name: self._live(name) for name in (*_STATE, *_MOCAP)}
        out.update(frames=self._frames, dof_pos=self.dof_pos, dof_vel=self.dof_vel, dof_force=self.dof_force)
        out.update(force_sensor=self.force_sensor, bad=self.bad, still=self._still, target=self._target)
        out.update(totals=self._totals)
        out.update({f"field/{name}": value for name, value in self._fields.items()})
        return out

    def state_dict(self) -> dict[str, Tensor]:
        """MuJoCo-Warp's state, views, targets and counters; staged writes are not part of it."""
        return {name: value.clone() for name, value in self._saved().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict``; raises ValueError when the shapes are another scene's."""
        saved = self._saved()
        check_shapes(state, saved)
        for name, own in saved.items():
            own.copy_(state[name])
        for mask in (self._dof_mask, self._root_mask, *self._field_mask.values()):
            mask.zero_()

    def copy_env(self, env: int, data: mujoco.MjData) -> None:
        """Write one environment's joints and markers into ``data`` of the render model."""
        for name in ("qpos", "qvel", *_MOCAP):
            getattr(data, name)[:] = self._live(name)[env].cpu().numpy()


def contact_buffer(model: mujoco.MjModel) -> int:
    """Contacts per world: half as many again as geoms that can collide.

    The two hands have 42 and were never seen with more than 26 contacts.
    """
    colliding = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    return max(_LEAST_CONTACTS, int(1.5 * colliding.sum()) + model.npair // 4)


def row_buffer(model: mujoco.MjModel, contacts: int) -> int:
    """Constraint rows per world: every limit, friction and equality, and half of ``contacts`` with all their rows.

    The two hands get about 250; the most ever seen is 174.
    """
    limits = int(model.jnt_limited.sum()) + int(model.tendon_limited.sum())
    friction = int((model.dof_frictionloss > 0).sum()) + int((model.tendon_frictionloss > 0).sum())
    dims = np.concatenate([[1], model.geom_condim, model.pair_dim])
    pyramidal = model.opt.cone == int(mujoco.mjtCone.mjCONE_PYRAMIDAL)
    widest = int(dims.max())
    rows = max(1, 2 * (widest - 1)) if pyramidal else widest
    return limits + friction + 6 * model.neq + rows * (contacts + 1) // 2


def frame_table(scene: Scene, compiled: Compiled) -> Any:
    """Where the frames of ``Compiled.link_names`` and then of the actors are fixed."""
    model = compiled.model
    link_bodies = [model.body(link_body(scene, name)).id for name in compiled.link_names]
    sites = [model.site(f"{actor.name}#root").id for actor in scene.actors]
    free = compiled.root_qpos >= 0
    roots = [
        model.body(link_body(scene, actor.name)).id if free[index] else -1 for index, actor in enumerate(scene.actors)
    ]
    body = np.array([*link_bodies, *(model.site_bodyid[site] for site in sites)], dtype=np.int64)
    pos = np.concatenate([np.zeros((len(link_bodies), 3)), model.site_pos[sites]])
    quat = np.concatenate([np.tile([1.0, 0.0, 0.0, 0.0], (len(link_bodies), 1)), model.site_quat[sites]])
    centre = np.array([*link_bodies, *roots], dtype=np.int64)
    return _struct(
        kernels.Frames,
        body=_index(body),
        pos=wp.array(pos, dtype=wp.vec3),
        quat=wp.array(quat[:, [1, 2, 3, 0]], dtype=wp.quat),
        centre=_index(centre),
        root=_index(model.body_rootid[np.where(centre >= 0, centre, body)]),
    )


def wp_rows(tensor: Tensor) -> Any:
    """A tensor (E, ...) of float32 as Warp's (E, numbers)."""
    return wp.from_torch(tensor.reshape(len(tensor), -1))


def _index(values: np.ndarray) -> Any:
    return wp.array(np.asarray(values, dtype=np.int32), dtype=wp.int32)


def _struct(cls: Any, **fields: Any) -> Any:
    out = cls()
    for name, value in fields.items():
        setattr(out, name, value)
    return out


def _stage(flags: Tensor, buffer: Tensor, mask: Tensor, value: Tensor) -> None:
    """Write the rows of ``mask`` (E,) into ``buffer`` (E, ...) and remember which."""
    flags.logical_or_(mask)
    rows = mask.view(-1, *[1] * (buffer.dim() - 1))
    torch.where(rows, value.to(buffer.dtype), buffer, out=buffer)


def _check_driver() -> None:
    """Torch may find a GPU where Warp does not: each needs the driver of its own CUDA version.

    Raises:
        UsageError: Warp finds none.
    """
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
