"""A scene in Isaac Gym's terms, as the values that its process is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dima_isaac.sim.compiled import Compiled
from dima_isaac.sim.config import IsaacGymConfig
from dima_isaac.sim.engine import MAX_SPEED
from dima_isaac.sim.isaacgym.assets import GymAsset, gym_asset
from dima_isaac.sim.scene import IDENTITY, Actor, Box, Ellipsoid, Scene

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
    """What to simulate and which of its parts are read and written. Writes the assets into ``folder``.

    Raises:
        UsageError: an asset with what Isaac Gym does not have.
    """
    assets = {actor.name: gym_asset(actor) for actor in scene.actors}
    files = {name: assets[name].write(folder, name) for name in assets}

    def part(name: str) -> list[str]:
        actor, _, rest = name.partition("/")
        return [actor, rest or assets[actor].links[0]]

    links = [part(link) for link in scene.links]
    sensors = [part(link) for link in scene.force_sensors]
    return {
        "dt": scene.control_dt,
        "substeps": cfg.substeps,
        "gravity": list(scene.gravity),
        "ground": scene.ground,
        "spacing": _SPACING,
        "max_speed": MAX_SPEED,
        "tendons": _TENDONS,
        "physx": {
            **_PHYSX,
            "num_position_iterations": cfg.position_iterations,
            "default_buffer_size_multiplier": cfg.buffer_size_multiplier,
            "max_gpu_contact_pairs": cfg.max_gpu_contact_pairs,
        },
        "folder": str(folder),
        "actors": [_actor(actor, assets[actor.name], files[actor.name], sensors, compiled) for actor in scene.actors],
        "links": links,
        # of links whose asset was written without its root's rotation, that rotation
        "link_rotations": [assets[a].root_quat if link == assets[a].links[0] else IDENTITY for a, link in links],
        "dofs": [part(name) for name in compiled.dof_names],
        "targets": compiled.actuator_dofs.tolist(),
        "wrenches": [part(f"{actor.name}/{actor.wrench}") for actor in scene.actors if actor.wrench],
        "sensors": sensors,
    }


def _actor(actor: Actor, asset: GymAsset, file: str, sensors: list[list[str]], compiled: Compiled) -> dict[str, Any]:
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
        "sensors": [link for owner, link in sensors if owner == actor.name],
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
