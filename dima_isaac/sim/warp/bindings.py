"""MuJoCo-Warp's arrays and a scene's tables as the structures that the kernels take."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import warp as wp
from torch import Tensor

from dima_isaac.sim.compiled import Compiled
from dima_isaac.sim.model import link_body
from dima_isaac.sim.scene import Scene
from dima_isaac.sim.warp import state_kernels, view_kernels


def struct(cls: Any, **fields: Any) -> Any:
    """An instance of a Warp structure with its fields set."""
    out = cls()
    for name, value in fields.items():
        setattr(out, name, value)
    return out


def index(values: np.ndarray) -> Any:
    """Integers as a Warp array."""
    return wp.array(np.asarray(values, dtype=np.int32), dtype=wp.int32)


def rows(tensor: Tensor) -> Any:
    """A float32 tensor (E, ...) as a Warp array (E, numbers) on the same memory."""
    return wp.from_torch(tensor.reshape(len(tensor), -1))


def state(d: Any) -> Any:
    """The live state of ``d`` (MuJoCo-Warp's data)."""
    return struct(
        state_kernels.State,
        qpos=d.qpos,
        qvel=d.qvel,
        act=d.act,
        warmstart=d.qacc_warmstart,
        time=d.time,
        mocap_pos=d.mocap_pos,
        mocap_quat=d.mocap_quat,
    )


def saved_state(d: Any) -> Any:
    """A copy of what a physics step changes in ``state``."""
    out = state(d)
    for name in ("qpos", "qvel", "act", "warmstart", "time"):
        setattr(out, name, wp.clone(getattr(out, name)))
    return out


def defaults(m: Any, model: mujoco.MjModel, max_speed: float) -> Any:
    """Where worlds are reset to."""
    mocap = np.flatnonzero(model.body_mocapid >= 0)
    bodies = mocap[np.argsort(model.body_mocapid[mocap])]
    return struct(
        state_kernels.Defaults,
        qpos=m.qpos0,
        body_pos=m.body_pos,
        body_quat=m.body_quat,
        mocap_body=index(bodies),
        max_speed=max_speed,
    )


def addresses(compiled: Compiled) -> Any:
    """Where actors and dofs are in the state."""
    return struct(
        state_kernels.Addresses,
        dof_qpos=index(compiled.dof_qpos),
        dof_qvel=index(compiled.dof_qvel),
        root_qpos=index(compiled.root_qpos),
        root_qvel=index(compiled.root_qvel),
        root_mocap=index(compiled.root_mocap),
        root_offset=wp.array(compiled.root_offset, dtype=wp.vec3),
        root_com=wp.array(compiled.root_com, dtype=wp.vec3),
    )


def kinematics(d: Any) -> Any:
    """Poses and velocities of bodies."""
    return struct(
        view_kernels.Kinematics, xpos=d.xpos, xquat=d.xquat, xipos=d.xipos, cvel=d.cvel, subtree_com=d.subtree_com
    )


def contacts(d: Any, model: mujoco.MjModel) -> Any:
    """The contact list, and room for each contact's wrench."""
    return struct(
        view_kernels.Contacts,
        count=d.nacon,
        world=d.contact.worldid,
        geom=d.contact.geom,
        pos=d.contact.pos,
        wrench=wp.zeros(d.naconmax, dtype=wp.spatial_vector),
        geom_body=index(model.geom_bodyid),
    )


def frames(scene: Scene, compiled: Compiled) -> Any:
    """Where the frames of ``Compiled.link_names`` and then of the actors are fixed."""
    model = compiled.model
    link_bodies = [model.body(link_body(scene, name)).id for name in compiled.link_names]
    sites = [model.site(f"{actor.name}#root").id for actor in scene.actors]
    roots = [model.body(link_body(scene, actor.name)).id if actor.free else -1 for actor in scene.actors]
    body = np.array([*link_bodies, *(model.site_bodyid[site] for site in sites)], dtype=np.int64)
    pos = np.concatenate([np.zeros((len(link_bodies), 3)), model.site_pos[sites]])
    quat = np.concatenate([np.tile([1.0, 0.0, 0.0, 0.0], (len(link_bodies), 1)), model.site_quat[sites]])
    centre = np.array([*link_bodies, *roots], dtype=np.int64)
    return struct(
        view_kernels.Frames,
        body=index(body),
        pos=wp.array(pos, dtype=wp.vec3),
        quat=wp.array(quat[:, [1, 2, 3, 0]], dtype=wp.quat),
        centre=index(centre),
        root=index(model.body_rootid[np.where(centre >= 0, centre, body)]),
    )


def sensed_bodies(scene: Scene, compiled: Compiled) -> tuple[Any, Any]:
    """The body of every force sensor (S,), and the sensor of every body, -1 without one."""
    names = [compiled.link_names[link] for link in compiled.sensor_links]
    bodies = np.array([compiled.model.body(link_body(scene, name)).id for name in names], dtype=np.int64)
    sensor_of_body = np.full(compiled.model.nbody, -1)
    sensor_of_body[bodies] = np.arange(len(bodies))
    return index(bodies), index(sensor_of_body)
