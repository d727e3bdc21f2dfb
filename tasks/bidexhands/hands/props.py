"""What stands and lies beside the hands: authored objects, supports, eggs, cubes and their goal markers."""

from pathlib import Path

from dima_isaac.sim.rotations import from_rpy
from dima_isaac.sim.scene import Actor, Box, Ellipsoid, Mjcf, Vec3
from dima_isaac.tasks.bidexhands.hands.starts import Prop

ASSETS = Path(__file__).parents[1] / "assets"
EGG: Vec3 = (0.03, 0.03, 0.04)  # semi-axes, m
CUBE: Vec3 = (0.05, 0.05, 0.05)  # edges, m
CUBE_RPY: Vec3 = (1.57, 1.57, 0.0)  # how the benchmark's cubes lie at the start
TABLETOP_VIEW: tuple[Vec3, Vec3] = ((-0.75, 0.55, 1.25), (0.12, 0.0, 0.66))
Color = tuple[float, float, float, float]
MARKER: Color = (0.25, 0.75, 0.35, 0.35)
_WOOD: Color = (0.72, 0.62, 0.5, 1.0)


def authored(
    name: str,
    asset: str,
    pos: Vec3,
    rpy: Vec3 = (0.0, 0.0, 0.0),
    fixed: bool = False,
    friction: float = 1.0,
    joints: dict[str, float] | None = None,
    joint_vel: dict[str, float] | None = None,
) -> Prop:
    """An authored object; ``asset`` is the name of a file in ``assets/``. All objects share one position noise."""
    actor = Actor(name, Mjcf(path=str(ASSETS / f"{asset}.xml")), pos, from_rpy(*rpy), fixed=fixed, friction=friction)
    return Prop(actor, jitter="object", level=True, joints=joints or {}, joint_vel=joint_vel or {})


def table(size: Vec3, at: tuple[float, float] = (0.0, 0.0), friction: float = 1.0) -> Prop:
    """A box that stands on the ground and never moves; the benchmark's own are free, and too heavy to show it."""
    actor = Actor("table", Box(size, color=_WOOD), pos=(*at, 0.5 * size[2]), fixed=True, friction=friction)
    return Prop(actor)


def egg(name: str, pos: Vec3, color: Color = (0.9, 0.8, 0.6, 1.0)) -> Prop:
    """The egg that hands throw; starts at a random orientation, with the position noise of all eggs."""
    return Prop(Actor(name, Ellipsoid(EGG, color=color), pos=pos), jitter="object", spin="object")


def egg_goal(name: str, pos: Vec3) -> Prop:
    """Where an egg should be, at a random orientation."""
    return Prop(Actor(name, Ellipsoid(EGG, color=MARKER), pos=pos, marker=True), spin="goal")


def cube(
    name: str, pos: Vec3, color: Color, rpy: Vec3 = (0.0, 0.0, 0.0), density: float = 500.0, friction: float = 1.0
) -> Prop:
    """A free 5 cm cube on a support."""
    actor = Actor(name, Box(CUBE, density, color), pos, from_rpy(*rpy), friction=friction)
    return Prop(actor, jitter="object", level=True)


def cube_goal(name: str, pos: Vec3, color: Color) -> Prop:
    """Where a cube should be."""
    return Prop(Actor(name, Box(CUBE, color=(*color[:3], 0.3)), pos, marker=True))
