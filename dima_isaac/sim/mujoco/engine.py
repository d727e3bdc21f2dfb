"""MuJoCo on the CPU: E simulations of one model on a C thread pool (``mujoco.batch``), as float32 tensors.

Bit-identical at any thread count. Observations are fresh: after the physics steps the position and velocity stages are
computed at the new state, and a persistent batch continues its next step from them, so that they are not
computed twice. Joint forces and contact wrenches belong to the last physics step, and are zero after a reset.

Poses and joints are slices of two float32 buffers, filled once per step by one gather and one cast each.
Packing is NumPy's, single-threaded: torch's own threads would take the cores on which physics runs next.

MuJoCo resets a simulation that turns non-finite to the model's defaults and only counts it; the counters are read
after every step and become ``bad``.
"""

import ctypes
import logging
import os

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from mujoco.batch import SimulationError as BatchError
from torch import Tensor

from dima_isaac import ranks
from dima_isaac.errors import SimulationError
from dima_isaac.sim.base import BaseEngine
from dima_isaac.sim.compiled import STATE_FIELDS, compile_scene
from dima_isaac.sim.config import MujocoConfig
from dima_isaac.sim.engine import FRAME, MAX_SPEED, Capabilities
from dima_isaac.sim.model import WRENCH
from dima_isaac.sim.mujoco.bare import BareMujoco
from dima_isaac.sim.mujoco.contact_batch import ContactBatch
from dima_isaac.sim.mujoco.state_rows import StateRows
from dima_isaac.sim.scene import Scene
from dima_isaac.sim.variation import varies, vary

Array = np.ndarray
_LOG = logging.getLogger(__name__)
_STAGE_NONE = int(mujoco.mjtStage.mjSTAGE_NONE.value)
_STAGE_VEL = int(mujoco.mjtStage.mjSTAGE_VEL.value)
_STAGE_ACC = int(mujoco.mjtStage.mjSTAGE_ACC.value)
_WARN = mujoco.mjtWarning
_BROKEN = [int(w) for w in (_WARN.mjWARN_BADQPOS, _WARN.mjWARN_BADQVEL, _WARN.mjWARN_BADQACC, _WARN.mjWARN_BADCTRL)]
_OVERFLOW = [int(w) for w in (_WARN.mjWARN_CONTACTFULL, _WARN.mjWARN_CNSTRFULL)]
_RESTARTS = ("qpos", "qvel")
_BYTES_PER_ENV = 500_000  # of a persistent simulation with two hands
_BOTH = np.array([1, 2, 0, 2, 0, 1])  # p x f = p[_BOTH[:3]] f[_BOTH[3:]] - p[_BOTH[3:]] f[_BOTH[:3]]
_CONTACT_COLUMNS = np.concatenate([np.arange(6), 9 + np.arange(9), 6 + _BOTH, np.roll(_BOTH, 3)])
"""Of a contact's 18 numbers: force and torque, the link's axes, then point and force in the cross product's order."""
_DENSE_UP_TO = 100
"""Degrees of freedom up to which constraints are dense; MuJoCo itself would change at 60, which two hands pass.

About once in 10,000 control steps of fingers on edges, the sparse Newton solver of MuJoCo 4.0 stops far from
the minimum of its own cost, which its dense one and its other solvers find, and a joint is kicked to 30 to 200 rad/s.
Up to here dense is as fast, too: 72 degrees take 4 % less time, 68 with a bottle's many contacts 10 % more, 253 thrice
as much.
"""


class MujocoEngine(BaseEngine):
    """The CPU engine; see ``Engine`` for the contract.

    ``force_sensor`` is the net contact wrench on the link during the last physics step, about the link's origin;
    ``dof_force`` the force of the position drive in that step, joint damping not included.
    """

    capabilities = Capabilities(deterministic=True, on_host=True, viewer=True, bare_physics=True)
    _settable = STATE_FIELDS

    def __init__(self, scene: Scene, num_envs: int, cfg: MujocoConfig) -> None:
        """Compile ``scene`` and start the pool.

        Raises:
            UsageError: a scene that names what it does not have.
        """
        # MuJoCo would print a line for each environment; the same is counted in ``stats``
        mujoco.set_mju_user_warning(_LOG.debug)
        self.cfg = cfg
        compiled = compile_scene(scene, cfg)
        model = self.model = compiled.model
        substeps = scene.frame_skip if scene.world else cfg.steps
        super().__init__(scene, compiled, num_envs, torch.device("cpu"), model.opt.timestep * substeps, substeps)
        if not self._raw and model.nv <= _DENSE_UP_TO:
            model.opt.jacobian = mujoco.mjtJacobian.mjJAC_DENSE
        self._stage = _STAGE_NONE if self._raw else _STAGE_VEL
        self.threads = cfg.threads or ranks.cores()
        persistent = _fits(num_envs) if cfg.persistent is None else cfg.persistent
        self.batch: Batch | ContactBatch
        if "cfrc_ext" in scene.fields:
            self.batch = ContactBatch(model, num_envs, self.threads)
        else:
            self.batch = Batch(model, num_envs, self.threads, persistent)
        if varies(scene):
            vary(self.batch, scene, compiled)
        self._bind()
        self._allocate_stage()
        self._bare: BareMujoco | None = None
        self.refresh(torch.ones(num_envs, dtype=torch.bool))

    # ---- views -------------------------------------------------------------------------------------------------

    def _bind(self) -> None:
        """Live arrays of the batch, and the float32 views that they are packed into."""
        compiled, batch, envs = self._compiled, self.batch, self.num_envs
        self._rows: Array = batch.state
        self._state_rows = StateRows(batch, compiled)
        self._writable = {name: batch.bind(name) for name in self._settable}
        self._qvel, self._ctrl, self._xfrc = (self._writable[name] for name in ("qvel", "ctrl", "xfrc_applied"))
        self._sensors, self._drive = batch.bind("sensordata"), batch.bind("qfrc_actuator")

        links, actors, dofs = len(compiled.link_names), len(compiled.actor_names), len(compiled.dof_names)
        sensors, frames = len(self.scene.force_sensors), FRAME * (links + actors)
        block = np.array([0, 1, 2, 4, 5, 6, 3, 7, 8, 9, 10, 11, 12])  # wxyz -> xyzw
        self._frame_columns = (FRAME * np.arange(links + actors)[:, None] + block).ravel()
        self._frames64 = np.zeros((envs, frames))
        self._frames32 = np.zeros((envs, frames), dtype=np.float32)
        blocks = torch.from_numpy(self._frames32).unflatten(1, (links + actors, FRAME))
        self.body_state, self.root_state = blocks[:, : len(self.link_names)], blocks[:, links:]
        self._contacts = self._sensors[:, frames : frames + WRENCH * sensors].reshape(envs, sensors, WRENCH)
        self._origins = self._frames64.reshape(envs, links + actors, FRAME)[..., :3]
        self.force_sensor = torch.zeros(envs, sensors, 6)
        self._wrenches32 = self.force_sensor.numpy()

        self._dof_columns = self._state_rows.dofs
        self._dofs64 = np.zeros((envs, 2 * dofs))
        self._dofs32 = np.zeros((envs, 2 * dofs), dtype=np.float32)
        packed = torch.from_numpy(self._dofs32)
        self.dof_pos, self.dof_vel = packed[:, :dofs], packed[:, dofs:]
        self.dof_force = torch.zeros(envs, dofs)
        self._force32, self._dof_qvel = self.dof_force.numpy(), _as_slice(compiled.dof_qvel)

        self._fields = {name: _alias(batch.bind(name)) for name in self.scene.fields}
        self.bad = torch.zeros(envs, dtype=torch.bool)
        self._any_bad = False
        self._nonfinite, self._overflow, self._broken_runs = (torch.zeros((), dtype=torch.int64) for _ in range(3))
        self._still = np.zeros(envs, dtype=bool)  # not stepped since it was placed: its last step's forces are stale
        self._any_still = False

    def _allocate_stage(self) -> None:
        compiled, envs = self._compiled, self.num_envs
        actors, dofs = len(compiled.actor_names), len(compiled.dof_names)
        self._target: Array | None = None
        self._forces: dict[int, tuple[Array, Array]] = {}
        self._force_shares = compiled.wrench_share.astype(np.float32)
        self._root_mask = np.zeros((actors, envs), dtype=bool)
        self._root_stage = np.zeros((actors, envs, FRAME))
        self._roots_staged = self._dofs_staged = False
        self._dof_mask = np.zeros(envs, dtype=bool)
        self._dof_stage = np.zeros((envs, 2 * dofs))
        self._field_stage: list[tuple[Array, str, Array]] = []

    # ---- staged writes -----------------------------------------------------------------------------------------

    def _stage_target(self, target: Tensor) -> None:
        self._target = target.numpy()

    def _stage_force(self, actor: int, force: Tensor, torque: Tensor) -> None:
        push, turn = self._force_shares[actor]
        self._forces[self._wrench_body[actor]] = push * force.numpy(), turn * torque.numpy()

    def _stage_root(self, mask: Tensor, actor: int, state: Tensor) -> None:
        chosen = mask.numpy()
        self._roots_staged = True
        self._root_mask[actor] |= chosen
        np.copyto(self._root_stage[actor], state.numpy(), where=chosen[:, None])

    def set_dof_state(self, mask: Tensor, pos: Tensor, vel: Tensor) -> None:
        chosen = mask.numpy()
        self._dofs_staged = True
        self._dof_mask |= chosen
        dofs = len(self.dof_names)
        np.copyto(self._dof_stage[:, :dofs], pos.numpy(), where=chosen[:, None])
        np.copyto(self._dof_stage[:, dofs:], vel.numpy(), where=chosen[:, None])

    def _stage_field(self, mask: Tensor, name: str, value: Tensor) -> None:
        self._field_stage.append((mask.numpy(), name, value.numpy()))

    def _flush(self) -> None:
        """Write everything staged into the state rows, which the batch reads at its next call."""
        if self._dofs_staged:
            ids = np.flatnonzero(self._dof_mask)
            broken = self._state_rows.clear_memory(ids, self.bad.numpy())
            if len(broken):
                self.batch.reset(broken, stage=_STAGE_NONE)
            self._state_rows.write_dofs(ids, self._dof_stage[ids])
            self._dof_mask[:] = False
            self._dofs_staged = False
        if self._roots_staged:
            actor, env = np.nonzero(self._root_mask)
            self._state_rows.write_roots(actor, env, self._root_stage[actor, env])
            self._root_mask[:] = False
            self._roots_staged = False
        if self._field_stage:
            self._write_fields()
        if self._target is not None:
            self._ctrl[:] = self._target
        for body, (force, torque) in self._forces.items():
            self._xfrc[:, body, :3], self._xfrc[:, body, 3:] = force, torque

    def _write_fields(self) -> None:
        restarting = [mask for mask, name, _ in self._field_stage if name in _RESTARTS]
        if restarting:
            self.batch.reset(np.flatnonzero(np.logical_or.reduce(restarting)), stage=_STAGE_NONE)
        for mask, name, value in self._field_stage:
            view = self._writable[name]
            if np.count_nonzero(mask) == len(mask):
                np.copyto(view, value)
            else:
                np.copyto(view, value, where=mask.reshape(-1, *[1] * (view.ndim - 1)))
        self._field_stage.clear()

    # ---- time --------------------------------------------------------------------------------------------------

    def step(self, hold: Tensor) -> None:
        self._flush()
        self.batch.warning.fill(0)
        held = hold.numpy()
        any_held = bool(np.count_nonzero(held))
        if self._bare is not None and self._bare.recording:
            self._bare.add(self._rows, held)
        try:
            if any_held:
                self.batch.step(~held, self.substeps, self._stage)
                self._forward(held)
            else:
                self.batch.step(None, self.substeps, self._stage)
        except BatchError as error:
            raise SimulationError(f"MuJoCo stopped: {error}") from error
        for body in self._forces:
            self._xfrc[:, body] = 0.0
        self._forces.clear()
        self._still[:] = held
        self._any_still = any_held
        self._pack()
        self._find_broken(held)

    def refresh(self, mask: Tensor) -> None:
        self._flush()
        chosen = mask.numpy()
        self._forward(chosen)
        self._still |= chosen
        self._any_still = True
        others, views = ~chosen, (self._frames32, self._dofs32, self._force32, self._wrenches32)
        kept = [view[others] for view in views]  # after loading, the batch does not have what they were packed from
        self._pack()
        for view, rows in zip(views, kept, strict=True):
            view[others] = rows

    def _forward(self, mask: Array) -> None:
        self.batch.forward(mask, _STAGE_ACC if self._raw else _STAGE_VEL)

    def _pack(self) -> None:
        """Copy the batch's arrays into the float32 views; an environment that stood still has no forces."""
        if self._raw:
            return
        np.take(self._sensors, self._frame_columns, axis=1, out=self._frames64, mode="clip")
        np.copyto(self._frames32, self._frames64, casting="same_kind")
        np.take(self._rows, self._dof_columns, axis=1, out=self._dofs64, mode="clip")
        np.copyto(self._dofs32, self._dofs64, casting="same_kind")
        np.copyto(self._force32, self._drive[:, self._dof_qvel], casting="same_kind")
        if self._any_still:
            self._force32[self._still] = 0.0
        if self._wrenches32.size:
            self._pack_wrenches()

    def _pack_wrenches(self) -> None:
        """Convert MuJoCo's contact wrenches, where there are any: on the link, about its origin, in its axes."""
        self._wrenches32.fill(0.0)
        force = self._contacts[..., :3]
        touched = np.einsum("esk,esk->es", force, force) != 0.0
        if self._any_still:
            touched[self._still] = False
        env, sensor = np.nonzero(touched)
        if not len(env):
            return
        # repeated columns turn the lever arm's cross product into two products
        contact = self._contacts[env, sensor].take(_CONTACT_COLUMNS, axis=1)
        lever = contact[:, 15:21]
        lever -= self._origins[env, self._compiled.sensor_links[sensor]].take(_BOTH, axis=1)
        lever *= contact[:, 21:]
        torque = contact[:, 3:6]
        torque += lever[:, :3]
        torque -= lever[:, 3:]
        local = contact[:, :6].reshape(-1, 2, 1, 3) * contact[:, 6:15].reshape(-1, 1, 3, 3)
        self._wrenches32[env, sensor] = -local.sum(-1).reshape(-1, 6)

    def _find_broken(self, held: Array) -> None:
        """Flag and count the environments whose physics broke in this step."""
        counts = self.batch.warning
        had_bad = self._any_bad
        if had_bad:
            self.bad.zero_()
        # a NaN fails the comparison too
        too_fast = not max(self._qvel.max(initial=0.0), -self._qvel.min(initial=0.0)) <= MAX_SPEED
        self._any_bad = bool(too_fast or counts.any())
        if not self._any_bad:
            if had_bad:
                self._broken_runs.zero_()
            return
        broken = counts[:, _BROKEN, 1].any(1)
        if too_fast:
            broken |= ~(np.abs(self._qvel).max(1) <= MAX_SPEED) & ~held
        self.bad.copy_(torch.from_numpy(broken))
        self._nonfinite += int(broken.sum())
        self._overflow += int(counts[:, _OVERFLOW, 1].any(1).sum())
        self._broken_runs.add_(1).mul_(bool(broken.all()))
        self._check_broken(int(self._broken_runs))

    # ---- the rest ----------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Tensor]:
        return {"nonfinite": self._nonfinite.clone(), "contact_overflow": self._overflow.clone()}

    def _saved(self) -> dict[str, Tensor]:
        return {
            "rows": torch.from_numpy(self._rows),  # all of MuJoCo's integration state
            "sensed": torch.from_numpy(self._frames32),
            "dofs": torch.from_numpy(self._dofs32),
            "dof_force": self.dof_force,
            "force_sensor": self.force_sensor,
            "bad": self.bad,
            "still": torch.from_numpy(self._still),
            "broken_runs": self._broken_runs,
            "nonfinite": self._nonfinite,
            "contact_overflow": self._overflow,
            **{f"field/{name}": value for name, value in self._fields.items()},
        }

    def _before_load(self, state: dict[str, Tensor]) -> None:
        self._allocate_stage()
        self._any_bad = self._any_still = True  # some may be

    def copy_env(self, env: int, data: mujoco.MjData) -> None:
        for name in ("qpos", "qvel", "mocap_pos", "mocap_quat"):
            getattr(data, name)[:] = self._writable[name][env]

    def bare_physics(self) -> BareMujoco:
        self._bare = BareMujoco(self.model, self.num_envs, self.substeps, self.threads)
        return self._bare


def _fits(envs: int) -> bool:
    """Whether persistent simulations take less than a quarter of the free memory."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return envs * _BYTES_PER_ENV < 0.25 * free


def _as_slice(index: Array) -> slice | Array:
    """Consecutive indices as a slice, so that taking them is a view."""
    if len(index) and np.array_equal(index, np.arange(index[0], index[0] + len(index))):
        return slice(int(index[0]), int(index[0]) + len(index))
    return index


def _alias(view: Array) -> Tensor:
    """A tensor on the memory of a batch array (outputs are flagged read-only, which torch cannot express)."""
    if view.flags.writeable:
        return torch.from_numpy(view)
    buffer = (ctypes.c_char * view.nbytes).from_address(view.ctypes.data)
    return torch.from_numpy(np.frombuffer(memoryview(buffer), dtype=view.dtype).reshape(view.shape))
