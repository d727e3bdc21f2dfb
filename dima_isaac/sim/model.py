"""A MuJoCo model of a ``Scene``, by MuJoCo's model editor: one for physics, one with visuals for pictures.

- Base. A free actor's root frame may be turned against its asset's first body (the Shadow hand's is), so such
  an actor gets a massless body whose frame is the actor's pose. Damped actors have that body at their rest
  centre of mass, which makes the base's mass matrix, and so its damping, diagonal.
- Contact. Every articulated actor has its own bit: it touches every other actor and, within itself, what
  its asset's masks and pairs allow. ``self_collision`` lets all of its links touch except those that already
  overlap in the rest pose.
- Friction. PhysX averages two materials, MuJoCo takes the larger one. An actor whose friction f is not 1 gets
  priority and (f + 1) / 2: exact against any actor of friction 1, the larger of the two means otherwise.
"""

from itertools import count

import mujoco
import numpy as np

from dima_isaac.errors import UsageError
from dima_isaac.sim.config import Cone, PhysicsConfig
from dima_isaac.sim.mjcf import compile_spec, load_asset, rest_com, root_name
from dima_isaac.sim.scene import Actor, Box, Ellipsoid, Mjcf, Quat, Scene, Vec3

Array = np.ndarray
_SHARED_BIT = 1  # ground and single bodies: they cannot touch themselves, so one bit serves all
_EVERYTHING = (1 << 31) - 1
_LAST_BIT = 30  # articulated actors beyond so many share it
_CONTACT_DATA = (1 << 1) | (1 << 2) | (1 << 4)  # force, torque, position
_NET_FORCE = 3
_HIDDEN = 5  # a group of sites that pictures leave out
WRENCH = 18  # numbers per contact block: force 3, torque 3, point 3, then the link's three axes


def compile_visuals(scene: Scene) -> mujoco.MjModel:
    """The model for pictures: the same bodies and joints, with visual geoms, lights and markers. It never steps."""
    if not scene.world:
        return build_model(scene, PhysicsConfig(), visuals=True, sensors=False)[0]
    model = compile_world(scene)
    _endless_floor(model)
    return model


def _endless_floor(model: mujoco.MjModel) -> None:
    """Draw floors as far as one can see: physics has them endless anyway, and a cheetah leaves 40 m behind in 7 s."""
    planes = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)
    for geom in (geom for geom in planes if model.geom(geom).name == "floor"):
        material = model.geom_matid[geom]
        if material >= 0 and not model.mat_texuniform[material]:  # squares as large as they were
            model.mat_texrepeat[material] /= 2.0 * model.geom_size[geom, :2]
            model.mat_texuniform[material] = True
        model.geom_size[geom, :2] = 0.0


def compile_world(scene: Scene) -> mujoco.MjModel:
    """The model of a scene that is one file, untouched."""
    if scene.actors or scene.frame_skip < 1:
        raise UsageError(f"a scene with world='{scene.world}' needs frame_skip >= 1 and no actors")
    return mujoco.MjModel.from_xml_path(scene.world)


def build_model(
    scene: Scene, cfg: PhysicsConfig, visuals: bool, sensors: bool
) -> tuple[mujoco.MjModel, dict[str, Array]]:
    """The model of a scene of actors, and by actor the offset (3,) from its frame to its free joint's, in its axes.

    Raises:
        UsageError: an asset that MuJoCo cannot read or compile, or an unknown link.
    """
    spec = mujoco.MjSpec()
    option = spec.option
    option.timestep = scene.control_dt / cfg.steps
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC if cfg.cone is Cone.elliptic else mujoco.mjtCone.mjCONE_PYRAMIDAL
    option.impratio = cfg.impratio
    if scene.firm_grip:
        # pyramidal cones let a held object creep out of the hand, the faster the larger its friction
        option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        option.impratio = max(cfg.impratio, scene.firm_grip)
    option.iterations, option.ls_iterations = cfg.iterations, cfg.ls_iterations
    option.gravity = scene.gravity
    spec.compiler.discardvisual = not visuals
    if visuals:
        _add_surroundings(spec)
    if scene.ground:
        spec.worldbody.add_geom(
            name="ground",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[0.0, 0.0, 0.05],
            material="floor" if visuals else "",
            contype=_SHARED_BIT,
            conaffinity=_EVERYTHING,
        )
    bits = (1 << min(shift, _LAST_BIT) for shift in count(1))
    offsets = {}
    for actor in scene.actors:
        if isinstance(actor.asset, Mjcf):
            offsets[actor.name] = _add_asset(spec, actor, actor.asset, next(bits), cfg)
        else:
            _add_primitive(spec, actor, actor.asset)
            offsets[actor.name] = np.zeros(3)
    _check_links(spec, scene)
    if sensors:
        _add_sensors(spec, scene)
    model = compile_spec(spec)
    overlapping = _overlaps(model, {actor.name for actor in scene.actors if actor.self_collision})
    for first, second in overlapping:
        spec.add_exclude(bodyname1=first, bodyname2=second)
    return compile_spec(spec) if overlapping else model, offsets


def _wxyz(quat: Quat) -> list[float]:
    return [quat[3], quat[0], quat[1], quat[2]]


def rotated(quat: Quat, vector: Array) -> Array:
    """``vector`` (3,) rotated by ``quat`` (xyzw)."""
    out = np.zeros(3)
    mujoco.mju_rotVecQuat(out, np.asarray(vector, dtype=np.float64), np.array(_wxyz(quat)))
    return out


def _base(spec: mujoco.MjSpec, actor: Actor, name: str, pos: Vec3 | Array) -> mujoco.MjsBody:
    """A top-level body at ``pos`` with the actor's orientation and base."""
    body = spec.worldbody.add_body(name=name, pos=list(pos), quat=_wxyz(actor.quat), mocap=actor.marker)
    if actor.free:
        body.add_freejoint(name=f"{actor.name}#free")
    return body


def _add_primitive(spec: mujoco.MjSpec, actor: Actor, asset: Box | Ellipsoid) -> None:
    body = _base(spec, actor, actor.name, actor.pos)
    body.gravcomp = 0.0 if actor.gravity else 1.0
    if isinstance(asset, Box):
        shape, size = mujoco.mjtGeom.mjGEOM_BOX, [0.5 * extent for extent in asset.size]
    else:
        sphere = len(set(asset.radii)) == 1
        shape = mujoco.mjtGeom.mjGEOM_SPHERE if sphere else mujoco.mjtGeom.mjGEOM_ELLIPSOID
        size = list(asset.radii)
    geom = body.add_geom(
        name=f"{actor.name}#geom",
        type=shape,
        size=size,
        density=asset.density,
        rgba=list(asset.color),
        # torsional friction: an egg on fingertips must not spin freely about its contact normal
        condim=4,
    )
    _set_contact(geom, actor, _SHARED_BIT, itself=True)
    body.add_site(name=f"{actor.name}#root", group=_HIDDEN)


def _add_asset(spec: mujoco.MjSpec, actor: Actor, asset: Mjcf, bit: int, cfg: PhysicsConfig) -> Array:
    """Attach an MJCF asset; returns the offset from the actor's frame to its free joint's frame."""
    child, root = load_asset(asset)
    pairs = {name for pair in child.pairs for name in (pair.geomname1, pair.geomname2)}
    for geom in child.geoms:
        if geom.contype or geom.conaffinity or geom.name in pairs:
            itself = actor.self_collision or bool(geom.contype and geom.conaffinity)
            _set_contact(geom, actor, bit, itself)
    for body in child.bodies:
        body.gravcomp = 0.0 if actor.gravity else 1.0
    for joint in child.joints:
        joint.damping = np.asarray(joint.damping) * cfg.joint_damping_scale
    for actuator in child.actuators:
        actuator.gainprm[0] *= cfg.stiffness_scale
        actuator.biasprm[1] *= cfg.stiffness_scale
    offset = rest_com(asset) if actor.free and any(actor.damping) else np.zeros(3)
    prefix = f"{actor.name}/"
    if actor.fixed:
        frame = spec.worldbody.add_frame(pos=list(actor.pos), quat=_wxyz(actor.quat))
        frame.attach_body(root, prefix, "")
        spec.worldbody.add_site(name=f"{actor.name}#root", pos=list(actor.pos), quat=_wxyz(actor.quat), group=_HIDDEN)
    else:
        base = _base(spec, actor, f"{actor.name}#base", np.asarray(actor.pos) + rotated(actor.quat, offset))
        base.add_frame(pos=list(-offset)).attach_body(root, prefix, "")
        base.add_site(name=f"{actor.name}#root", pos=list(-offset), group=_HIDDEN)
    return offset


def _set_contact(geom: mujoco.MjsGeom, actor: Actor, bit: int, itself: bool) -> None:
    """Let a geom of ``actor`` touch every other actor, and its own actor too if ``itself``."""
    if actor.marker:
        geom.contype, geom.conaffinity = 0, 0
        return
    geom.contype = bit
    geom.conaffinity = _EVERYTHING if itself else _EVERYTHING & ~bit
    friction = np.array(geom.friction)
    friction[0] = 0.5 * (actor.friction + 1.0)
    geom.friction = friction
    geom.priority = int(actor.friction != 1.0)


def _overlaps(model: mujoco.MjModel, actors: set[str]) -> list[tuple[str, str]]:
    """Pairs of one actor's bodies that penetrate in the rest pose; of ``actors`` only."""
    if not actors:
        return []
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    found = set()
    for contact in data.contact[: data.ncon]:
        first, second = sorted(model.body(model.geom_bodyid[g]).name for g in contact.geom)
        if contact.dist < 0 and first.split("/")[0] == second.split("/")[0] and first.split("/")[0] in actors:
            found.add((first, second))
    return sorted(found)


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    """A bright key light with highlights, a weaker one from the other side, and what the camera and the sky add."""
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.3, 0.3, 0.3]
    spec.visual.headlight.specular = [0.1, 0.1, 0.1]
    for direction, strength in ((-0.3, -0.35, -1.0), 0.45), ((0.8, 0.6, -0.5), 0.25):
        spec.worldbody.add_light(
            pos=[-2.0 * x for x in direction],
            dir=direction,
            diffuse=[strength] * 3,
            specular=[strength] * 3,
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        )
    texture, pattern = mujoco.mjtTexture, mujoco.mjtBuiltin
    for name, kind, builtin, first, second in (
        ("sky", texture.mjTEXTURE_SKYBOX, pattern.mjBUILTIN_GRADIENT, [0.86, 0.89, 0.93], [0.55, 0.6, 0.68]),
        ("floor", texture.mjTEXTURE_2D, pattern.mjBUILTIN_CHECKER, [0.66, 0.7, 0.74], [0.63, 0.67, 0.71]),
    ):
        spec.add_texture(name=name, type=kind, builtin=builtin, rgb1=first, rgb2=second, width=64, height=64)
    floor = spec.add_material(name="floor", texrepeat=[4.0, 4.0], texuniform=True, specular=0.0)
    floor.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "floor"


def _check_links(spec: mujoco.MjSpec, scene: Scene) -> None:
    bodies = {body.name for body in spec.bodies}
    for link in (*scene.links, *scene.force_sensors):
        if link_body(scene, link) not in bodies:
            known = sorted(name for name in bodies if "#" not in name and name != "world")
            raise UsageError(f"no link '{link}' in the scene. Known: {', '.join(known)}.")


def _add_sensors(spec: mujoco.MjSpec, scene: Scene) -> None:
    sensor, obj = mujoco.mjtSensor, mujoco.mjtObj

    def frame(place: tuple[mujoco.mjtObj, str], centre: tuple[mujoco.mjtObj, str]) -> None:
        spec.add_sensor(type=sensor.mjSENS_FRAMEPOS, objtype=place[0], objname=place[1])
        spec.add_sensor(type=sensor.mjSENS_FRAMEQUAT, objtype=place[0], objname=place[1])
        spec.add_sensor(type=sensor.mjSENS_FRAMELINVEL, objtype=centre[0], objname=centre[1])
        spec.add_sensor(type=sensor.mjSENS_FRAMEANGVEL, objtype=place[0], objname=place[1])

    for link in frame_links(scene):
        body = link_body(scene, link)
        frame((obj.mjOBJ_XBODY, body), (obj.mjOBJ_BODY, body))
    for actor in scene.actors:
        site = (obj.mjOBJ_SITE, f"{actor.name}#root")
        frame(site, (obj.mjOBJ_BODY, link_body(scene, actor.name)) if actor.free else site)
    for link in scene.force_sensors:
        spec.add_sensor(
            type=sensor.mjSENS_CONTACT,
            objtype=obj.mjOBJ_BODY,
            objname=link_body(scene, link),
            intprm=[_CONTACT_DATA, _NET_FORCE, 1],
        )
        for axis in (sensor.mjSENS_FRAMEXAXIS, sensor.mjSENS_FRAMEYAXIS, sensor.mjSENS_FRAMEZAXIS):
            spec.add_sensor(type=axis, objtype=obj.mjOBJ_XBODY, objname=link_body(scene, link))


def frame_links(scene: Scene) -> tuple[str, ...]:
    """The links whose frames are read: the registered ones, then those only a force sensor needs."""
    return tuple(dict.fromkeys((*scene.links, *scene.force_sensors)))


def link_body(scene: Scene, link: str) -> str:
    """The MuJoCo body of ``actor/part``, or the root body of ``actor``."""
    asset = next((actor.asset for actor in scene.actors if actor.name == link), None)
    return f"{link}/{root_name(asset)}" if isinstance(asset, Mjcf) else link
