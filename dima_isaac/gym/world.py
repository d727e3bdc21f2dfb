"""What a program creates before ``prepare_sim``: environments of actors, and the ``Scene`` that they stand for.

Every environment has the same actors, made of the same assets; the first one is the scene. What may differ between
them: poses of free actors, masses, friction and joint properties (``Scene.per_env``).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dima_isaac.errors import UsageError
from dima_isaac.gym.assets import Asset
from dima_isaac.gym.rules import warn_once
from dima_isaac.gym.structs import DofDriveMode, SimParams
from dima_isaac.sim.compiled import Compiled
from dima_isaac.sim.scene import Actor, Mjcf, Scene

Array = np.ndarray


@dataclass(eq=False)
class Placed:
    """One actor of one environment, with the properties that it was given, if any."""

    name: str
    asset: Asset
    pose: list[float]  # position 3, quaternion 4 (xyzw)
    group: int
    filter: int
    dof_properties: Array | None = None
    masses: list[float] | None = None
    friction: list[float] | None = None

    @property
    def drives(self) -> Array:
        """Its joint properties (dofs,)."""
        return self.asset.dof_properties() if self.dof_properties is None else self.dof_properties

    @property
    def mean_friction(self) -> float:
        """Its friction: one number for all of its shapes."""
        values = self.asset.friction() if self.friction is None else self.friction
        if len(set(values)) > 1:
            warn_once(f"shapes of '{self.name}' differ in friction: all of them get the mean here")
        return float(np.mean(values)) if values else 1.0


@dataclass(eq=False)
class Env:
    """One environment: its number, its simulation, and its actors in the order in which they were created."""

    index: int
    sim: Any
    actors: list[Placed] = field(default_factory=list)

    def before(self, count: Callable[[Placed], int]) -> int:
        """How many of something all actors of earlier environments have: environments are alike."""
        return self.index * sum(count(actor) for actor in self.sim.world.envs[0].actors)


@dataclass
class World:
    """Everything that was created in one simulation."""

    params: SimParams
    envs: list[Env] = field(default_factory=list)
    ground: bool = False

    def scene(self) -> Scene:
        """The first environment as a scene, without what differs from it in others.

        Raises:
            UsageError: no environment or actor, or environments that differ in more than properties.
        """
        if not self.envs or not self.envs[0].actors:
            raise UsageError("prepare_sim found no environment with an actor; call create_env and create_actor first")
        first = self.envs[0].actors
        for env in self.envs:
            if [id(actor.asset) for actor in env.actors] != [id(actor.asset) for actor in first]:
                raise UsageError(
                    f"environment {env.index} has other actors than environment 0; here all of them need the same"
                    " assets, each loaded once, in the same order"
                )
        if any(a.filter & b.filter > 0 for a in first for b in first if a is not b and min(a.filter, b.filter) > 0):
            warn_once(
                "actors that share a bit of their collision filters pass through each other in Isaac Gym, not here"
            )
        names = _unique([actor.name for actor in first])
        group = next((actor.group for actor in first if actor.group >= 0), -1)
        actors = [self._actor(name, k, group) for k, name in enumerate(names)]
        links = [f"{name}/{link}" for name, actor in zip(names, first, strict=True) for link in actor.asset.links]
        sensed = [
            f"{name}/{actor.asset.links[link]}"
            for name, actor in zip(names, first, strict=True)
            for link, _ in actor.asset.sensors
        ]
        x, y, z = self.params.gravity
        return Scene(
            actors=actors,
            links=links,
            force_sensors=sensed,
            control_dt=float(self.params.dt),
            ground=self.ground,
            gravity=(x, y, z),
            fields=("xfrc_applied", "qfrc_applied"),
        )

    def _actor(self, name: str, index: int, group: int) -> Actor:
        """The actor of that index, which is a marker where it is not in the collision ``group``."""
        everywhere = [env.actors[index] for env in self.envs]
        placed, options = everywhere[0], everywhere[0].asset.options
        alone = placed.group not in (-1, group)
        if alone and not (options.disable_gravity or options.fix_base_link):
            warn_once(f"'{name}' is not in the others' collision group: here it touches nothing and does not fall")
        fixed = bool(options.fix_base_link)
        if fixed and not alone and any(one.pose != placed.pose for one in everywhere):
            raise UsageError(f"'{name}' is fixed, and stands elsewhere in other environments; give it one pose for all")
        varied = len({one.mean_friction for one in everywhere}) > 1
        x, y, z, *quat = placed.pose
        return Actor(
            name,
            Mjcf(xml=placed.asset.driven(placed.drives, collides=placed.filter <= 0)),
            pos=(x, y, z),
            quat=(quat[0], quat[1], quat[2], quat[3]),
            fixed=fixed and not alone,
            marker=alone,
            gravity=not options.disable_gravity,
            friction=placed.mean_friction + varied * 1e-6,  # off 1, which would give way to the other shape's
            damping=(float(options.linear_damping), float(options.angular_damping)),
            self_collision=placed.filter == 0 and len(placed.asset.links) > 1,
        )

    def differences(self, scene: Scene, compiled: Compiled) -> dict[str, Array]:
        """Model fields that differ between environments, name -> (E, ...), for ``Scene.per_env``."""
        model, found = compiled.model, _Fields(compiled.model, len(self.envs))
        dof = 0
        for index, actor in enumerate(scene.actors):
            placed = [env.actors[index] for env in self.envs]
            drives = np.stack([one.drives for one in placed])  # (E, dofs)
            joints = [model.joint(name) for name in compiled.dof_names[dof : dof + drives.shape[1]]]
            dof += drives.shape[1]
            for j, joint in enumerate(joints):
                _vary_joint(found, model, joint, drives[:, j])
            mass = np.array([one.asset.masses() if one.masses is None else one.masses for one in placed])
            bodies = [model.body(f"{actor.name}/{link}").id for link in placed[0].asset.links]
            own = model.body_mass[bodies]
            factor = np.where(own > 0.0, mass / np.where(own > 0.0, own, 1.0), 1.0)
            if not np.allclose(factor, 1.0, rtol=1e-6):
                found["body_mass"][:, bodies] *= factor
                found["body_inertia"][:, bodies] *= factor[..., None]
            friction = np.array([one.mean_friction for one in placed])
            if np.ptp(friction):
                geoms = np.flatnonzero(np.isin(model.geom_bodyid, bodies))
                found["geom_friction"][:, geoms, 0] = 0.5 * (friction + 1.0)[:, None]
        return dict(found)


class _Fields(dict[str, Array]):
    """Copies (E, ...) of a model's fields, made when they are first asked for."""

    def __init__(self, model: Any, envs: int) -> None:
        super().__init__()
        self._model, self._envs = model, envs

    def __missing__(self, name: str) -> Array:
        self[name] = np.repeat(np.array(getattr(self._model, name))[None], self._envs, 0)
        return self[name]


def _vary_joint(found: _Fields, model: Any, joint: Any, rows: Array) -> None:
    """Write where the properties ``rows`` (E,) of one joint differ between environments."""
    address = joint.dofadr[0]
    modes = set(rows["driveMode"].tolist())
    if len(modes) > 1:
        raise UsageError(f"joint '{joint.name}' has several drive modes; here all environments have the first one's")
    drives = np.flatnonzero(model.actuator_trnid[:, 0] == joint.id)
    by_speed = modes == {int(DofDriveMode.DOF_MODE_VEL)}
    gain = "damping" if by_speed else "stiffness"
    for field_, name in (("dof_damping", "damping"), ("dof_frictionloss", "friction"), ("dof_armature", "armature")):
        if np.ptp(rows[name]) and not (by_speed and name == gain):
            found[field_][:, address] += rows[name] - rows[name][0]
    if np.ptp(rows["lower"]) or np.ptp(rows["upper"]):
        found["jnt_range"][:, joint.id] = np.stack([rows["lower"], rows["upper"]], 1)
    for u in drives:
        if np.ptp(rows[gain]):
            found["actuator_gainprm"][:, u, 0] = rows[gain]
            found["actuator_biasprm"][:, u, 2 if by_speed else 1] = -rows[gain]
        if np.ptp(rows["effort"]):
            found["actuator_forcerange"][:, u] = rows["effort"][:, None] * np.array([-1.0, 1.0])


def _unique(names: list[str]) -> list[str]:
    """Names of actors that MuJoCo takes: without its separators, and each once."""
    plain = [name.replace("/", "_").replace("#", "_") or "actor" for name in names]
    return [name if plain.count(name) == 1 else f"{name}.{i}" for i, name in enumerate(plain)]
