"""MuJoCo-Warp's arrays and a scene's tables as the structures that the kernels take."""

from typing import Any

import mujoco
import numpy as np
import warp as wp
from torch import Tensor

from dima_isaac.sim.compiled import Compiled
from dima_isaac.sim.model import link_body
from dima_isaac.sim.scene import Scene
from dima_isaac.sim.warp import view_kernels


def struct(cls: Any, source: Any = None, **fields: Any) -> Any:
    """An instance of the Warp structure ``cls``: its fields from ``fields``, or else from ``source`` by their names."""
    out = cls()
    for name in cls.vars:
        setattr(out, name, _on_device(fields[name] if name in fields else getattr(source, name)))
    return out


def _on_device(value: Any) -> Any:
    """Tensors as Warp arrays on the same memory, NumPy's integers and rows of three numbers as copies on the device."""
    if isinstance(value, Tensor):
        return wp.from_torch(value)
    if isinstance(value, np.ndarray):
        return index(value) if value.dtype.kind == "i" else wp.array(value, dtype=wp.vec3)
    return value


def index(values: np.ndarray) -> Any:
    """Integers as a Warp array."""
    return wp.array(np.asarray(values, dtype=np.int32), dtype=wp.int32)


def rows(tensor: Tensor) -> Any:
    """A float32 tensor (E, ...) as a Warp array (E, numbers) on the same memory."""
    return wp.from_torch(tensor.reshape(len(tensor), -1))


def mocap_bodies(model: mujoco.MjModel) -> np.ndarray:
    """The body of every mocap index, (nmocap,)."""
    bodies = np.flatnonzero(model.body_mocapid >= 0)
    return bodies[np.argsort(model.body_mocapid[bodies])]


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
    xyzw = wp.array(quat[:, [1, 2, 3, 0]], dtype=wp.quat)
    root = model.body_rootid[np.where(centre >= 0, centre, body)]
    return struct(view_kernels.Frames, body=body, pos=pos, quat=xyzw, centre=centre, root=root)


def sensed_bodies(scene: Scene, compiled: Compiled) -> tuple[Any, Any]:
    """The body of every force sensor (S,), and the sensor of every body, -1 without one."""
    names = [compiled.link_names[link] for link in compiled.sensor_links]
    bodies = np.array([compiled.model.body(link_body(scene, name)).id for name in names], dtype=np.int64)
    sensor_of_body = np.full(compiled.model.nbody, -1)
    sensor_of_body[bodies] = np.arange(len(bodies))
    return index(bodies), index(sensor_of_body)
