"""MuJoCo on the CPU: E simulations of one model on a C thread pool (``mujoco.batch``), as float32 tensors.

Bit-identical at any thread count. Observations are fresh: after the physics steps the position and velocity stages are
computed at the new state, and a persistent batch continues its next step from them, so that they are not
computed twice. Joint forces and contact wrenches belong to the last physics step, and are zero after a reset.

Poses and joints are slices of two float32 buffers, filled once per step by one gather and one cast each.
Packing is NumPy's, single-threaded: torch's own threads would wake on the cores where physics runs next.

MuJoCo puts a simulation that turns non-finite back to the model's defaults and says so only in a counter; the
counters are read after every step and become ``bad``.
"""

from __future__ import annotations

import ctypes
import logging
import os

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from mujoco.batch import SimulationError as BatchError
from torch import Tensor

from dima_isaac.errors import SimulationError, UsageError
from dima_isaac.sim.compiled import compile_scene
from dima_isaac.sim.config import MujocoConfig
from dima_isaac.sim.engine import Capabilities
from dima_isaac.sim.model import FRAME, WRENCH
from dima_isaac.sim.mujoco.bare import BarePhysics, Tape
from dima_isaac.sim.mujoco.contact_batch import ContactBatch
from dima_isaac.sim.mujoco.state_rows import StateRows
from dima_isaac.sim.render import Drawn
from dima_isaac.sim.scene import Scene
from dima_isaac.sim.variation import varies, vary

Array = np.ndarray
_LOG = logging.getLogger(__name__)
_STAGE_NONE = int(mujoco.mjtStage.mjSTAGE_NONE.value)
_STAGE_VEL = int(mujoco.mjtStage.mjSTAGE_VEL.value)
_STAGE_ACC = int(mujoco.mjtStage.mjSTAGE_ACC.value)
_WARN = mujoco.mjtWarning
_BROKEN = [int(w) for w in (_WARN.mjWARN_BADQPOS, _WARN.mjWARN_BADQVEL, _WARN.mjWARN_BADQACC, _WARN.mjWARN_BADCTRL)]
_FULL = [int(w) for w in (_WARN.mjWARN_CONTACTFULL, _WARN.mjWARN_CNSTRFULL)]
_RESTARTS = ("qpos", "qvel")
_BYTES_PER_ENV = 500_000  # of a persistent simulation with two hands
_BOTH = np.array([1, 2, 0, 2, 0, 1])  # p x f = p[_BOTH[:3]] f[_BOTH[3:]] - p[_BOTH[3:]] f[_BOTH[:3]]
_CONTACT_COLUMNS = np.concatenate([np.arange(6), 9 + np.arange(9), 6 + _BOTH, np.roll(_BOTH, 3)])
"""Of a contact's 18 numbers: force and torque, the link's axes, then point and force in the cross product's order."""
_DENSE_UP_TO = 100
"""Degrees of freedom up to which constraints are dense; MuJoCo itself would change at 60, which two hands pass.

About once in 10,000 control steps of fingers on edges, the sparse Newton solver of MuJoCo 4.0 comes to a halt far from
the minimum of its own cost, which its dense one and its other solvers find, and a joint is kicked to 30 to 200 rad/s.
Up to here dense is as fast, too: 72 degrees take 4 % less time, 68 with a bottle's many contacts 10 % more, 253 thrice
as much.
"""
_HOPELESS = 10  # control steps with every environment broken before the engine gives up


class MujocoEngine(Drawn):
    """The CPU engine; see ``Engine`` for the contract."""

    capabilities = Capabilities(
        deterministic=True,
        fresh_after_reset=True,
        force_sensor="net contact wrench on the link during the last physics step, about the link origin, link axes",
        dof_force="force of the position drive during the last physics step (joint damping not included)",
        on_host=True,
    )

    def __init__(self, scene: Scene, num_envs: int, cfg: MujocoConfig) -> None:
        """Compile ``scene`` and start the pool.

        Raises:
            UsageError: a scene that names what it does not have, or fewer than no threads.
        """
        if cfg.threads < 0:
            raise UsageError(f"engine.threads={cfg.threads} is too small; the least is 0, which takes every core.")
        # counters say the same, and per-environment lines from a pool of threads help nobody
        mujoco.set_mju_user_warning(_LOG.debug)
        self.cfg, self.scene, self.num_envs = cfg, scene, num_envs
        self.device = torch.device("cpu")
        compiled = self._compiled = compile_scene(scene, cfg)
        model = self.model = compiled.model
        self._raw = bool(scene.world)
        if not self._raw and model.nv <= _DENSE_UP_TO:
            model.opt.jacobian = mujoco.mjtJacobian.mjJAC_DENSE
        self.substeps = scene.frame_skip if self._raw else cfg.steps
        self.control_dt = model.opt.timestep * self.substeps
        self._stage = _STAGE_NONE if self._raw else _STAGE_VEL
        self.threads = cfg.threads or len(os.sched_getaffinity(0))
        persistent = _fits(num_envs, cfg.persistent_share) if cfg.persistent is None else cfg.persistent
        self.batch: Batch | ContactBatch
        if "cfrc_ext" in scene.fields:
            self.batch = ContactBatch(model, num_envs, self.threads)
        else:
            self.batch = Batch(model, num_envs, self.threads, persistent)
        if varies(scene):
            vary(self.batch, scene, compiled)

        self.actor_names, self.link_names = compiled.actor_names, compiled.link_names[: len(scene.links)]
        self.dof_names = compiled.dof_names
        self.actuator_dofs = torch.from_numpy(compiled.actuator_dofs)
        self.dof_lower = torch.from_numpy(compiled.dof_lower).float()
        self.dof_upper = torch.from_numpy(compiled.dof_upper).float()
        self._bind(num_envs)
        self._stage_buffers(num_envs)
        self.tape: Tape | None = None  # a list here records what every step started from
        self.refresh(torch.ones(num_envs, dtype=torch.bool))

    # ---- views -------------------------------------------------------------------------------------------------

    def _bind(self, envs: int) -> None:
        """Live arrays of the batch, and the float32 views that they are packed into."""
        compiled, batch = self._compiled, self.batch
        self._shares = compiled.wrench_share.astype(np.float32)
        self._rows: Array = batch.state
        self._starts = StateRows(batch, compiled)
        self._qpos, self._qvel = batch.bind("qpos"), batch.bind("qvel")
        self._ctrl, self._xfrc = batch.bind("ctrl"), batch.bind("xfrc_applied")
        self._mocap_pos, self._mocap_quat = batch.bind("mocap_pos"), batch.bind("mocap_quat")
        self._sensors, self._drive = batch.bind("sensordata"), batch.bind("qfrc_actuator")

        links, actors, dofs = len(compiled.link_names), len(compiled.actor_names), len(compiled.dof_names)
        sensors, frames = len(self.scene.force_sensors), FRAME * (links + actors)
        block = np.array([0, 1, 2, 4, 5, 6, 3, 7, 8, 9, 10, 11, 12])  # wxyz -> xyzw
        self._frame_columns = (FRAME * np.arange(links + actors)[:, None] + block).ravel()
        self._frames64 = np.zeros((envs, frames))
        self._frames32 = np.zeros((envs, frames), dtype=np.float32)
        blocks = torch.from_numpy(self._frames32)[:, :frames].unflatten(1, (links + actors, FRAME))
        self.body_state, self.root_state = blocks[:, : len(self.link_names)], blocks[:, links:]
        self._contacts = self._sensors[:, frames : frames + WRENCH * sensors].reshape(envs, sensors, WRENCH)
        self._origins = self._frames64.reshape(envs, links + actors, FRAME)[..., :3]
        self.force_sensor = torch.zeros(envs, sensors, 6)
        self._force_rows = self.force_sensor.numpy()

        self._dof_columns = self._starts.dofs
        self._dofs64 = np.zeros((envs, 2 * dofs))
        self._dofs32 = np.zeros((envs, 2 * dofs), dtype=np.float32)
        packed = torch.from_numpy(self._dofs32)
        self.dof_pos, self.dof_vel = packed[:, :dofs], packed[:, dofs:]
        self.dof_force = torch.zeros(envs, dofs)
        self._force32, self._dof_qvel = self.dof_force.numpy(), _as_slice(compiled.dof_qvel)

        self.bad = torch.zeros(envs, dtype=torch.bool)
        self._fields = {name: _alias(batch.bind(name)) for name in self.scene.fields}
        self._broken_runs, self._any_bad = 0, False
        self._nonfinite = torch.zeros((), dtype=torch.int64)
        self._overflow = torch.zeros((), dtype=torch.int64)

    def _stage_buffers(self, envs: int) -> None:
        compiled = self._compiled
        actors, dofs = len(compiled.actor_names), len(compiled.dof_names)
        self._target: Array | None = None
        self._forces: dict[int, tuple[Array, Array]] = {}
        self._root_mask = np.zeros((actors, envs), dtype=bool)
        self._root_stage = np.zeros((actors, envs, FRAME))
        self._roots_staged = self._dofs_staged = False
        self._dof_mask = np.zeros(envs, dtype=bool)
        self._dof_stage = np.zeros((envs, 2 * dofs))
        self._still = np.zeros(envs, dtype=bool)  # placed, not stepped: forces of the last step are another episode's
        self._any_still = False
        self._field_stage: list[tuple[Array, str, Array]] = []
        self._settable: dict[str, Array] = {}  # views of the state rows, each made once

    # ---- staged writes -----------------------------------------------------------------------------------------

    def set_dof_target(self, target: Tensor) -> None:
        """Position targets (E, U) for the actuated dofs, held until the next call."""
        if target.shape != self._ctrl.shape:
            raise ValueError(f"targets must be {self._ctrl.shape}, not {tuple(target.shape)}")
        self._target = target.numpy()

    def apply_force(self, actor: int, force: Tensor, torque: Tensor) -> None:
        """Force and torque (E, 3) in world axes at the centre of mass of the actor's wrench link, for one step."""
        body = int(self._compiled.wrench_body[actor])
        if body < 0:
            raise ValueError(f"actor '{self.actor_names[actor]}' has no wrench link")
        push, turn = self._shares[actor]
        self._forces[body] = push * force.numpy(), turn * torque.numpy()

    def set_root_state(self, mask: Tensor, actor: int, state: Tensor) -> None:
        """Write (E, 13) to one actor's root where ``mask`` (E,); markers use the pose only.

        Raises:
            ValueError: a fixed actor.
        """
        if self._compiled.root_qpos[actor] < 0 and self._compiled.root_mocap[actor] < 0:
            raise ValueError(f"actor '{self.actor_names[actor]}' is fixed and cannot be moved")
        chosen = mask.numpy()
        self._roots_staged = True
        self._root_mask[actor] |= chosen
        np.copyto(self._root_stage[actor], state.numpy(), where=chosen[:, None])

    def set_dof_state(self, mask: Tensor, pos: Tensor, vel: Tensor) -> None:
        """Write all dofs (E, dofs) where ``mask`` (E,). Clears what the solver remembers of these environments."""
        chosen = mask.numpy()
        self._dofs_staged = True
        self._dof_mask |= chosen
        dofs = len(self.dof_names)
        np.copyto(self._dof_stage[:, :dofs], pos.numpy(), where=chosen[:, None])
        np.copyto(self._dof_stage[:, dofs:], vel.numpy(), where=chosen[:, None])

    def field(self, name: str) -> Tensor:
        """The live (E, ...) tensor of one raw field; raises KeyError with those that the scene registered."""
        if name not in self._fields:
            raise KeyError(f"field '{name}' not among {list(self._fields)}")
        return self._fields[name]

    def constant(self, name: str) -> Tensor:
        """A copy of one raw field of the model, in its own precision."""
        return torch.from_numpy(np.array(getattr(self.model, name)))

    @property
    def body_names(self) -> tuple[str, ...]:
        """Every body of the model, the world first: the axis of raw fields such as ``xpos``."""
        return tuple(self.model.body(i).name for i in range(self.model.nbody))

    def set_field(self, mask: Tensor, name: str, value: Tensor) -> None:
        """Stage a raw state field (E, ...) where ``mask``; ``qpos`` and ``qvel`` start these environments anew."""
        self._field_stage.append((mask.numpy(), name, value.numpy()))

    def _flush(self) -> None:
        """Write everything staged into the state rows, which the batch reads at its next call."""
        if self._dofs_staged:
            ids = np.flatnonzero(self._dof_mask)
            broken = self._starts.forget(ids, self.bad.numpy())
            if len(broken):
                self.batch.reset(broken, stage=_STAGE_NONE)
            self._starts.write_dofs(ids, self._dof_stage[ids])
            self._dof_mask[:] = False
            self._dofs_staged = False
        if self._roots_staged:
            actor, env = np.nonzero(self._root_mask)
            self._starts.write_roots(actor, env, self._root_stage[actor, env])
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
            if name not in self._settable:
                self._settable[name] = self.batch.bind(name)
            view = self._settable[name]
            if np.count_nonzero(mask) == len(mask):
                np.copyto(view, value)
            else:
                np.copyto(view, value, where=mask.reshape(-1, *[1] * (view.ndim - 1)))
        self._field_stage.clear()

    # ---- time --------------------------------------------------------------------------------------------------

    def step(self, hold: Tensor) -> None:
        """Flush, advance one control step except where ``hold`` (E,), and bring every view up to date.

        Raises:
            SimulationError: MuJoCo failed, or every environment broke many steps in a row.
        """
        self._flush()
        self.batch.warning.fill(0)
        held = hold.numpy()
        any_held = bool(np.count_nonzero(held))
        if self.tape is not None:
            self.tape.append((self._rows.copy(), held.copy()))
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
        self._census(held)

    def refresh(self, mask: Tensor) -> None:
        """Flush and bring the views of ``mask`` (E,) up to date without advancing time."""
        self._flush()
        chosen = mask.numpy()
        self._forward(chosen)
        self._still |= chosen
        self._any_still = True
        others, views = ~chosen, (self._frames32, self._dofs32, self._force32, self._force_rows)
        kept = [view[others] for view in views]  # of a state that was loaded they are nowhere else
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
        if self._force_rows.size:
            self._pack_wrenches()

    def _pack_wrenches(self) -> None:
        """Turn MuJoCo's wrenches round where there are any: on the link, about its origin, in its axes."""
        self._force_rows.fill(0.0)
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
        self._force_rows[env, sensor] = -local.sum(-1).reshape(-1, 6)

    def _census(self, held: Array) -> None:
        """Find the environments whose physics broke in this step."""
        counts = self.batch.warning
        if self._any_bad:
            self.bad.zero_()
        # a NaN fails the comparison too
        too_fast = not (
            self._raw or max(self._qvel.max(initial=0.0), -self._qvel.min(initial=0.0)) <= self.cfg.max_speed
        )
        self._any_bad = bool(too_fast or counts.any())
        if not self._any_bad:
            self._broken_runs = 0
            return
        broken = counts[:, _BROKEN, 1].any(1)
        if too_fast:
            broken |= ~(np.abs(self._qvel).max(1) <= self.cfg.max_speed) & ~held
        self.bad.copy_(torch.from_numpy(broken))
        self._nonfinite += int(broken.sum())
        self._overflow += int(counts[:, _FULL, 1].any(1).sum())
        self._broken_runs = self._broken_runs + 1 if broken.all() else 0
        if self._broken_runs >= _HOPELESS:
            raise SimulationError(
                f"all {self.num_envs} environments were non-finite for {_HOPELESS} steps in a row: "
                "are the actions finite?"
            )

    # ---- the rest ----------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Tensor]:
        """Counters since construction: environments found ``nonfinite``, and with full contact buffers."""
        return {"nonfinite": self._nonfinite.clone(), "contact_overflow": self._overflow.clone()}

    def state_dict(self) -> dict[str, Tensor]:
        """State rows (all of MuJoCo's integration state), views, targets and counters."""
        out = {
            "rows": torch.from_numpy(self._rows.copy()),
            "sensed": torch.from_numpy(self._frames32.copy()),
            "dofs": torch.from_numpy(self._dofs32.copy()),
            "dof_force": self.dof_force.clone(),
            "force_sensor": self.force_sensor.clone(),
            "bad": self.bad.clone(),
            "still": torch.from_numpy(self._still.copy()),
            "broken_runs": torch.tensor(self._broken_runs),
            **self.stats(),
        }
        out.update({f"field/{name}": value.clone() for name, value in self._fields.items()})
        return out

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict``; raises ValueError when the shapes are another scene's."""
        rows = state["rows"]
        if tuple(rows.shape) != self._rows.shape:
            raise ValueError(f"the saved physics has shape {tuple(rows.shape)}, this scene {self._rows.shape}")
        self._stage_buffers(self.num_envs)
        self._rows[:] = rows.numpy()
        self._frames32[:] = state["sensed"].numpy()[:, : self._frames32.shape[1]]
        self._dofs32[:] = state["dofs"].numpy()
        self.dof_force.copy_(state["dof_force"])
        self.force_sensor.copy_(state["force_sensor"])
        self.bad.copy_(state["bad"])
        self._any_bad = bool(self.bad.any())
        self._still[:] = state["still"].numpy()
        self._any_still = bool(self._still.any())
        for name, value in self._fields.items():
            value.copy_(state[f"field/{name}"])
        self._broken_runs = int(state["broken_runs"])
        self._nonfinite.copy_(state["nonfinite"])
        self._overflow.copy_(state["contact_overflow"])

    def bare_physics(self) -> BarePhysics:
        """The yardstick that replays a ``tape`` with plain ``mj_step`` on as many threads."""
        return BarePhysics(self.model, self.num_envs, self.substeps, self.threads)

    def copy_env(self, env: int, data: mujoco.MjData) -> None:
        """Write one environment's joints and markers into ``data`` of the render model."""
        data.qpos[:], data.qvel[:] = self._qpos[env], self._qvel[env]
        data.mocap_pos[:], data.mocap_quat[:] = self._mocap_pos[env], self._mocap_quat[env]


def _fits(envs: int, share: float) -> bool:
    """Whether persistent simulations take less than ``share`` of the free memory."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return envs * _BYTES_PER_ENV < share * free


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
