"""MuJoCo-Warp's model and data of a scene, with buffers sized for it."""

import dataclasses
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import warp as wp

from dima_isaac.errors import UsageError
from dima_isaac.sim.compiled import Compiled
from dima_isaac.sim.config import MujocoWarpConfig
from dima_isaac.sim.scene import Scene
from dima_isaac.sim.variation import expanded_fields, varies

_UNBATCHED = {"dof_length"}  # only sleep, which is off here, reads it
_LEAST_CONTACTS = 16
_TOLERANCE = 1e-6  # the least that MuJoCo-Warp accepts: below it float32 rounding is larger


def make_model(scene: Scene, compiled: Compiled, num_envs: int, cfg: MujocoWarpConfig) -> tuple[Any, Any]:
    """MuJoCo-Warp's model and data on the current Warp device, with per-environment fields where the scene varies.

    Raises:
        UsageError: a scene that MuJoCo-Warp cannot simulate.
    """
    model = compiled.model
    if not scene.world:
        model.opt.tolerance = _TOLERANCE
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_SENSOR)  # the engine packs its views itself
    if model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:  # not there; Newton minimises the same cost
        model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    varied = expanded_fields(scene, compiled, num_envs) if varies(scene) else {}
    batched = {field.name for field in dataclasses.fields(mjw.Model)} & varied.keys()
    batched -= _UNBATCHED
    try:
        m = mjw.put_model(model, batch_sizes={name: num_envs for name in batched})
    except (NotImplementedError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise UsageError(f"MuJoCo-Warp cannot simulate this scene: {reason}. engine=mujoco can.") from error
    for name in batched:
        array = getattr(m, name)
        array.assign(varied[name].astype(np.float32).reshape(array.numpy().shape))
    option, device = m.opt, wp.get_device()
    if "opt.gravity" in varied:
        option.gravity = wp.array(varied["opt.gravity"], dtype=wp.vec3)
    option.warn_overflow = 0  # counted in ``stats``; a print from the device would serialise it
    option.deterministic = int(mjw.DeterminismType.ALL) if cfg.deterministic else 0
    option.graph_conditional = not device.is_cuda or wp.is_conditional_graph_supported()
    option.run_rne_postconstraint = "cfrc_ext" in scene.fields
    contacts = cfg.nconmax or contact_buffer(model)
    rows = cfg.njmax or row_buffer(model, contacts)
    return m, mjw.make_data(model, nworld=num_envs, nconmax=contacts, njmax=rows)


def contact_buffer(model: mujoco.MjModel) -> int:
    """Contacts per environment: half as many again as geoms that can collide.

    The two hands have 42 and were never seen with more than 26 contacts.
    """
    colliding = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    return max(_LEAST_CONTACTS, int(1.5 * colliding.sum()) + model.npair // 4)


def row_buffer(model: mujoco.MjModel, contacts: int) -> int:
    """Constraint rows per environment: every limit, friction and equality, and half of ``contacts`` with all their
    rows.

    The two hands get about 250; the most ever seen is 174.
    """
    limits = int(model.jnt_limited.sum()) + int(model.tendon_limited.sum())
    friction = int((model.dof_frictionloss > 0).sum()) + int((model.tendon_frictionloss > 0).sum())
    dims = np.concatenate([[1], model.geom_condim, model.pair_dim])
    pyramidal = model.opt.cone == int(mujoco.mjtCone.mjCONE_PYRAMIDAL)
    widest = int(dims.max())
    rows = max(1, 2 * (widest - 1)) if pyramidal else widest
    return limits + friction + 6 * model.neq + rows * (contacts + 1) // 2
