"""What every engine can simulate: actors with assets, poses and bases, and the links and sensors a task reads.

Lengths in metres, angles in radians, quaternions xyzw, z up. Nothing here depends on an engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Vec3 = tuple[float, float, float]
Quat = tuple[float, float, float, float]
IDENTITY: Quat = (0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Mjcf:
    """An asset in MuJoCo's XML: a file, or the text itself.

    Exactly one of ``path`` and ``xml`` is set. The asset is its first body with all that hangs on it; that body's own
    position is dropped while its rotation is kept, so that the actor's pose is that of the asset.
    """

    path: str = ""
    xml: str = ""


@dataclass(frozen=True)
class Box:
    """A box of full extents ``size`` (m)."""

    size: Vec3
    density: float = 500.0
    color: tuple[float, float, float, float] = (0.6, 0.6, 0.6, 1.0)


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid of semi-axes ``radii`` (m); a sphere when they are equal."""

    radii: Vec3
    density: float = 500.0
    color: tuple[float, float, float, float] = (0.9, 0.8, 0.6, 1.0)


@dataclass(frozen=True)
class Variation:
    """How one actor differs between environments: factors drawn once from (low, high); see ``sim.variation``.

    ``damping``, ``stiffness`` and the couplings are log-uniform, the others uniform.
    """

    mass: tuple[float, float] = (1.0, 1.0)
    friction: tuple[float, float] = (1.0, 1.0)
    damping: tuple[float, float] = (1.0, 1.0)
    stiffness: tuple[float, float] = (1.0, 1.0)
    coupling_damping: tuple[float, float] = (1.0, 1.0)
    coupling_stiffness: tuple[float, float] = (1.0, 1.0)
    limit_shift: float = 0.0  # standard deviation, rad or m
    scale: tuple[float, float] = (1.0, 1.0)  # of boxes and ellipsoids only


@dataclass(frozen=True)
class Actor:
    """One thing in the scene, with its own root.

    A ``fixed`` actor is welded to the world. A ``marker`` shows a goal: it has no collisions and no dynamics, and only
    ``Engine.set_root_state`` moves it. ``damping`` is PhysX's per-link velocity damping (1/s), ``wrench`` names the
    link on which ``Engine.apply_force`` acts.
    """

    name: str
    asset: Mjcf | Box | Ellipsoid
    pos: Vec3 = (0.0, 0.0, 0.0)
    quat: Quat = IDENTITY
    fixed: bool = False
    marker: bool = False
    gravity: bool = True
    friction: float = 1.0
    damping: tuple[float, float] = (0.0, 0.0)  # linear, angular
    wrench: str = ""
    self_collision: bool = False  # True: every pair of its links may touch; False: the asset's own masks and pairs
    variation: Variation | None = None  # None: the same in every environment

    @property
    def free(self) -> bool:
        """Whether physics moves its root."""
        return not (self.fixed or self.marker)


@dataclass(frozen=True)
class Scene:
    """Everything an engine needs to build E copies of the world.

    ``links`` are the links whose 13 numbers appear in ``Engine.body_state``; ``force_sensors`` the links whose
    contact wrench appears in ``Engine.force_sensor``.
    A name is ``actor/part``, as in ``hand0/ffdistal``; the actor's name alone means its root body.

    A scene is either actors, or one ``world`` file with ``frame_skip``: then names are the file's, the task reads raw
    ``fields``, and ``control_dt``, ``ground``, ``gravity`` and ``links`` have no effect.
    """

    actors: Sequence[Actor] = ()
    links: Sequence[str] = ()
    force_sensors: Sequence[str] = ()
    control_dt: float = 1.0 / 60.0
    ground: bool = True
    gravity: Vec3 = (0.0, 0.0, -9.81)
    camera_eye: Vec3 = (0.9, -0.5, 1.1)
    camera_target: Vec3 = (0.0, -0.5, 0.45)
    world: str = ""  # path of a complete MJCF that is the whole world; then there are no actors
    # raw engine fields exposed as they are (``Engine.field``), in the engine's precision; with actors, those of the
    # applied forces that ``Engine.set_field`` is to write
    fields: Sequence[str] = ()
    frame_skip: int = 0  # with ``world``: physics steps of the file's own timestep per control step
    gravity_deviation: float = 0.0  # standard deviation of each environment's gravity, per axis (m/s^2)
    variation_seed: int = 0  # of everything that is drawn
    per_env: Mapping[str, Any] = field(default_factory=dict)  # fields of MuJoCo's model that differ: name -> (E, ...)
    firm_grip: float = 0.0  # > 0: exact friction cones, friction at least this many times as stiff as contact
