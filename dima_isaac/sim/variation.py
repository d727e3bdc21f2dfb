"""Domain randomisation: every environment draws its own masses, gains, limits, friction, sizes and gravity, once.

The draw happens when the engine is built, as PhysX requires for masses and sizes: an environment is one sample of the
domain, and a run with E environments learns on E of them. Environment i draws the same whatever E is, and both MuJoCo
engines the same numbers. MuJoCo's ``mj_setConst`` derives what follows from them (inverse weights, subtree masses,
bounds), per environment.

What is multiplied or shifted in MuJoCo's model:

    mass          each body's mass and inertia
    friction      each geom's sliding friction; contact takes the larger of two, or the actor's own (``Actor.friction``)
    damping       each hinge's or slide's own damping, without the drag of ``Actor.damping``
    stiffness     each position drive's gain, both sides of it
    limit_shift   standard deviation of a shift (rad, m) of each joint limit; targets keep the nominal range
    coupling_stiffness, coupling_damping
                  the spring and damper that hold a coupling tendon within its limits (MuJoCo bounds their time
                  constant from below by two physics steps)
    scale         one factor for the whole of a box or ellipsoid; mass is drawn on its own, so inertia takes scale^2
"""

import math
import zlib
from typing import Any

import numpy as np
from mujoco.batch import MODEL_FIELDS, Batch

from dima_isaac.sim.compiled import Compiled
from dima_isaac.sim.scene import Actor, Mjcf, Scene, Variation

Array = np.ndarray


def varies(scene: Scene) -> bool:
    """Whether the environments of ``scene`` differ."""
    drawn = scene.gravity_deviation > 0.0 or any(actor.variation is not None for actor in scene.actors)
    return drawn or bool(scene.per_env)


def vary(batch: Any, scene: Scene, compiled: Compiled) -> None:
    """Give every simulation of ``batch`` (``mujoco.batch.Batch``) its own model."""
    for name, rows in scene.per_env.items():
        batch.expand(name)[:] = rows
    draw = _Draw(scene.variation_seed, batch.nsim)
    for actor in scene.actors:
        if actor.variation is not None:
            _vary_actor(batch, actor, actor.variation, compiled, draw)
    if scene.gravity_deviation:
        batch.expand("opt.gravity")[:] += scene.gravity_deviation * draw.normal("gravity", 3)
    batch.set_const()


def expanded_fields(scene: Scene, compiled: Compiled, envs: int) -> dict[str, Array]:
    """Every model field that differs between environments, derived ones too: name -> (E, ...); with ``opt.gravity``."""
    batch = Batch(compiled.model, envs, 0)
    vary(batch, scene, compiled)
    found = {name: batch.expanded(name) for name in MODEL_FIELDS}
    return {name: np.array(value) for name, value in found.items() if value is not None}


class _Draw:
    """Random numbers by environment and purpose: the first rows are the same however many follow."""

    def __init__(self, seed: int, envs: int) -> None:
        self._seed, self._envs = seed, envs

    def _generator(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, zlib.crc32(purpose.encode())])

    def uniform(self, purpose: str, n: int, low: float, high: float) -> Array:
        """(E, n) in [low, high)."""
        return self._generator(purpose).uniform(low, high, (self._envs, n))

    def loguniform(self, purpose: str, n: int, low: float, high: float) -> Array:
        """(E, n), the logarithm uniform."""
        return np.exp(self.uniform(purpose, n, math.log(low), math.log(high)))

    def normal(self, purpose: str, n: int) -> Array:
        """(E, n) standard normal."""
        # Box-Muller takes as many numbers for each row; NumPy's own rejection sampling does not
        u = self.uniform(purpose, 2 * n, 0.0, 1.0)
        return np.sqrt(-2.0 * np.log1p(-u[:, :n])) * np.cos(2.0 * np.pi * u[:, n:])


def _vary_actor(batch: Any, actor: Actor, variation: Variation, compiled: Compiled, draw: _Draw) -> None:
    model, name = compiled.model, actor.name
    bodies = np.array([b for b in range(1, model.nbody) if _belongs(model.body(b).name, name)])
    geoms = np.flatnonzero(np.isin(model.geom_bodyid, bodies))
    mass = draw.uniform(f"{name} mass", len(bodies), *variation.mass)
    batch.expand("body_mass")[:, bodies] *= mass
    batch.expand("body_inertia")[:, bodies] *= mass[..., None]
    batch.expand("geom_friction")[:, geoms, 0] *= draw.uniform(f"{name} friction", len(geoms), *variation.friction)
    if not isinstance(actor.asset, Mjcf):
        scale = draw.uniform(f"{name} scale", 1, *variation.scale)
        batch.expand("geom_size")[:, geoms] *= scale[..., None]
        batch.expand("body_inertia")[:, bodies] *= scale[..., None] ** 2
        return
    joints = np.array([j for j in range(model.njnt) if _belongs(model.joint(j).name, name, free=False)], dtype=np.int64)
    dofs = model.jnt_dofadr[joints]
    if len(dofs):
        own = model.dof_damping[dofs] - compiled.drag[dofs]
        factor = draw.loguniform(f"{name} damping", len(dofs), *variation.damping)
        batch.expand("dof_damping")[:, dofs] = compiled.drag[dofs] + own * factor
    limited = joints[model.jnt_limited[joints].astype(bool)]
    if len(limited):
        shift = variation.limit_shift * draw.normal(f"{name} limits", 2 * len(limited))
        ranges = batch.expand("jnt_range")[:, limited] + shift.reshape(-1, len(limited), 2)
        batch.expand("jnt_range")[:, limited] = np.sort(ranges, axis=-1)  # those of a narrow range may have crossed
    drives = np.flatnonzero(np.isin(model.actuator_trnid[:, 0], joints))
    if len(drives):
        gain = draw.loguniform(f"{name} stiffness", len(drives), *variation.stiffness)
        batch.expand("actuator_gainprm")[:, drives, 0] *= gain
        batch.expand("actuator_biasprm")[:, drives, 1] *= gain
    tendons = np.array([t for t in range(model.ntendon) if _belongs(model.tendon(t).name, name)], dtype=np.int64)
    if len(tendons):
        # solref (t, d): damping 1 / t and stiffness 1 / (t d)^2, up to the impedance
        stiffer = draw.loguniform(f"{name} coupling stiffness", len(tendons), *variation.coupling_stiffness)
        damper = draw.loguniform(f"{name} coupling damping", len(tendons), *variation.coupling_damping)
        solref = batch.expand("tendon_solref_lim")
        solref[:, tendons, 0] /= damper
        solref[:, tendons, 1] *= damper / np.sqrt(stiffer)


def _belongs(part: str, actor: str, free: bool = True) -> bool:
    """Whether a body, joint or tendon is the actor's; with ``free=False`` its free joint is not."""
    return part.startswith(f"{actor}/") or (free and part in (actor, f"{actor}#base"))
