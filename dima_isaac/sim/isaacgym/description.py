"""A scene in Isaac Gym's terms: what its process is sent, and where the scene's parts are in its tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dima_isaac.sim.compiled import Compiled
from dima_isaac.sim.config import IsaacGymConfig
from dima_isaac.sim.isaacgym.assets import GymAsset, gym_asset
from dima_isaac.sim.scene import IDENTITY, Actor, Box, Ellipsoid, Quat, Scene

_COLLIDE_ALL, _COLLIDE_PAIRS = 0, -1  # create_actor's filter: all of its shapes touch, or those of its contact pairs
_UNLIMITED = 1e9  # rad, m or N m
_SPACING = 1.5  # m between environments; no observation depends on it
_PHYSX = {  # Bi-DexHands' own, in m and m/s
    "num_velocity_iterations": 0,
    "contact_offset": 0.002,
    "rest_offset": 0.0,
    "bounce_threshold_velocity": 0.2,
    "max_depenetration_velocity": 1000.0,
    "num_threads": 4,  # of PhysX on a CPU
}
_TENDONS = {"limit_stiffness": 30.0, "damping": 0.1}


def describe(scene: Scene, compiled: Compiled, cfg: IsaacGymConfig, folder: Path) -> dict[str, Any]:
    """What the worker is to simulate, by its names. Writes the assets into ``folder``.

    Raises:
        UsageError: an asset with what Isaac Gym does not have.
    """
    assets = {actor.name: gym_asset(actor) for actor in scene.actors}
    files = {name: assets[name].write(folder, name) for name in assets}

    sensors: dict[str, list[str]] = {actor.name: [] for actor in scene.actors}
    for sensor in scene.force_sensors:
        name, _, link = sensor.partition("/")
        sensors[name].append(link or assets[name].links[0])
    return {
        "dt": scene.control_dt,
        "substeps": cfg.substeps,
        "gravity": list(scene.gravity),
        "ground": scene.ground,
        "spacing": _SPACING,
        "tendons": _TENDONS,
        "physx": {
            **_PHYSX,
            "num_position_iterations": cfg.position_iterations,
            "default_buffer_size_multiplier": cfg.buffer_size_multiplier,
            "max_gpu_contact_pairs": cfg.max_gpu_contact_pairs,
        },
        "folder": str(folder),
        "actors": [_actor(a, assets[a.name], files[a.name], sensors[a.name], compiled) for a in scene.actors],
    }


@dataclass(frozen=True)
class TensorOrder:
    """Where a scene's parts are in an environment of Isaac Gym's tensors, in which each actor's parts are together."""

    bodies: int  # all links of all actors
    links: list[int]  # of the scene's links, among bodies
    dofs: list[int]
    sensors: list[int]
    wrenches: list[int]  # of each actor's wrench link, among bodies; -1 without one
    roots: list[Quat]  # of the scene's links: the rotation of a root link that its asset was written without


def tensor_order(scene: Scene, compiled: Compiled, links: list[list[str]], joints: list[list[str]]) -> TensorOrder:
    """The order of the scene's parts, from each actor's ``links`` and ``joints`` in the importer's order."""
    bodies: dict[str, int] = {}
    for actor, names in zip(scene.actors, links, strict=True):
        first = len(bodies)
        bodies |= {f"{actor.name}/{name}": first + i for i, name in enumerate(names)}
    every_joint = [f"{a.name}/{name}" for a, names in zip(scene.actors, joints, strict=True) for name in names]
    actors = [actor.name for actor in scene.actors]
    roots = {actor: f"{actor}/{names[0]}" for actor, names in zip(actors, links, strict=True)}
    full = [roots.get(link, link) for link in scene.links]
    turned = {roots[actor.name]: gym_asset(actor).root_quat for actor in scene.actors}
    # an asset's sensors are numbered as they were made, in the scene's order
    numbered = sorted(range(len(scene.force_sensors)), key=lambda s: actors.index(scene.force_sensors[s].split("/")[0]))
    return TensorOrder(
        bodies=len(bodies),
        links=[bodies[link] for link in full],
        dofs=[every_joint.index(name) for name in compiled.dof_names],
        sensors=[numbered.index(s) for s in range(len(numbered))],
        wrenches=[bodies[f"{a.name}/{a.wrench}"] if a.wrench else -1 for a in scene.actors],
        roots=[turned.get(link, IDENTITY) for link in full],
    )


def _actor(actor: Actor, asset: GymAsset, file: str, sensors: list[str], compiled: Compiled) -> dict[str, Any]:
    # the hand's asset lists the pairs of its own geoms that touch; everything else may touch all of itself
    pairs_only = bool(asset.tendons) and not actor.self_collision
    return {
        "name": actor.name,
        "file": file,
        "fixed": actor.fixed,
        "marker": actor.marker,
        "gravity": actor.gravity and not actor.marker,
        "friction": actor.friction,
        "damping": list(actor.damping),
        "density": actor.asset.density if isinstance(actor.asset, Box | Ellipsoid) else 1000.0,
        "filter": _COLLIDE_PAIRS if pairs_only else _COLLIDE_ALL,
        "pose": [*actor.pos, *actor.quat],
        "links": list(asset.links),
        "dofs": _joints(compiled, actor.name),
        "tendons": list(asset.tendons),
        "sensors": sensors,
    }


def _joints(compiled: Compiled, actor: str) -> dict[str, dict[str, float]]:
    """Isaac Gym's properties of an actor's joints: limits, and the drive that MuJoCo's actuator describes."""
    model = compiled.model
    drives = {int(dof): u for u, dof in enumerate(compiled.actuator_dofs)}
    out = {}
    for index, name in enumerate(compiled.dof_names):
        owner, _, joint = name.partition("/")
        if owner != actor:
            continue
        dof, drive = int(compiled.dof_qvel[index]), drives.get(index)
        limited = bool(np.isfinite(compiled.dof_lower[index]))
        bounded = drive is not None and bool(model.actuator_forcelimited[drive])
        out[joint] = {
            "hasLimits": limited,
            "lower": float(compiled.dof_lower[index]) if limited else -_UNLIMITED,
            "upper": float(compiled.dof_upper[index]) if limited else _UNLIMITED,
            "stiffness": 0.0 if drive is None else float(model.actuator_gainprm[drive, 0]),
            "damping": float(model.dof_damping[dof] - compiled.drag[dof]),
            "effort": float(model.actuator_forcerange[drive, 1]) if bounded else _UNLIMITED,
            "friction": float(model.dof_frictionloss[dof]),
            "armature": float(model.dof_armature[dof]),
        }
    return out
