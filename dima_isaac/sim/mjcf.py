"""Compile a ``Scene`` with MuJoCo's model editor: one model for physics, one with visuals for pictures.

Both MuJoCo engines use the result. What the compiler decides:

- Base. A free actor's root frame may be turned against its asset's first body (the Shadow hand's is), so such
  an actor gets a massless body whose frame is the actor's pose. Damped actors carry that body at their rest
  centre of mass, which makes the base's mass matrix, and so its damping, diagonal.
- Damping. PhysX steps every link of an articulation by v <- (v + F h / m)(1 - c h) under an applied force F, and
  adds the impulses of drives and contacts after that. So c per unit of mass is the drag, and 1 - c h of an applied
  force (a sixth, at c = 100 and h = 1/120) is what a drive or a contact has to balance. A drag proportional to mass on
  every link is, in joint space, c times the mass matrix; its diagonal at rest goes to ``dof_damping`` (implicit in
  every integrator used here), and the small coupling of base and fingers is left out.
- Contact. Every articulated actor has its own bit: it touches every other actor and, within itself, what
  its asset's masks and pairs allow. ``self_collision`` lets all of its links touch except those that already
  overlap in the rest pose.
- Friction. PhysX averages two materials, MuJoCo takes the larger one. An actor whose friction f is not 1 gets
  priority and (f + 1) / 2: exact against any actor of friction 1, the larger of the two means otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import mujoco
import numpy as np

from dima_isaac.errors import UsageError
from dima_isaac.sim.config import Cone, PhysicsConfig
from dima_isaac.sim.scene import Actor, Box, Ellipsoid, Mjcf, Quat, Scene, Vec3

Array = np.ndarray
_JOINT = mujoco.mjtJoint
_SHARED_BIT = 1  # ground and single bodies: they cannot touch themselves, so one bit serves all
_EVERYTHING = (1 << 31) - 1
_CONTACT_DATA = (1 << 1) | (1 << 2) | (1 << 4)  # force, torque, position
_NET_FORCE = 3
_HIDDEN = 5  # a group of sites that pictures leave out
FRAME = 13  # numbers per frame block: position 3, quaternion 4, linear 3 and angular velocity 3
WRENCH = 18  # numbers per contact block: force 3, torque 3, point 3, then the link's three axes


@dataclass(frozen=True)
class Compiled:
    """A physics model and where to find the scene's names in it.

    ``sensordata`` is L link frames, then A actor frames (wxyz), then S contact wrenches in world axes.
    """

    model: mujoco.MjModel
    actor_names: tuple[str, ...]
    link_names: tuple[str, ...]
    sensor_links: Array  # (S,) index into ``link_names`` of every force sensor
    dof_names: tuple[str, ...]
    dof_qpos: Array  # (dofs,) address in qpos
    dof_qvel: Array  # (dofs,) address in qvel
    dof_lower: Array  # (dofs,)
    dof_upper: Array  # (dofs,)
    actuator_dofs: Array  # (U,)
    root_qpos: Array  # (A,) address of the free joint's seven numbers, -1 without one
    root_qvel: Array  # (A,) address of its six, -1 without one
    root_mocap: Array  # (A,) index of a marker, -1 for others
    root_offset: Array  # (A, 3) from the actor's frame to the free joint's, in actor axes
    root_com: Array  # (A, 3) from the free joint's frame to the root link's centre of mass, in actor axes
    wrench_body: Array  # (A,) body that apply_force acts on, -1 without one
    wrench_share: Array  # (A, 2) what velocity damping leaves of an applied force and torque
    drag: Array  # (nv,) the part of ``dof_damping`` that stands for ``Actor.damping``


def compile_scene(scene: Scene, cfg: PhysicsConfig, sensors: bool = True) -> Compiled:
    """The physics model of ``scene``; without ``sensors`` its ``sensordata`` is empty.

    Raises:
        UsageError: an unknown body, link or wrench name, or a damping that the reference step cannot take.
    """
    if scene.world:
        return _index(scene, compile_world(scene), {})
    model, offsets = _build(scene, cfg, visuals=False, sensors=sensors)
    compiled = _index(scene, model, offsets)
    _damp(scene, cfg, compiled)
    return compiled


def compile_visuals(scene: Scene) -> mujoco.MjModel:
    """The model for pictures: the same bodies and joints, with visual geoms, lights and markers. It never steps."""
    if not scene.world:
        return _build(scene, PhysicsConfig(), visuals=True)[0]
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


def _build(
    scene: Scene,
    cfg: PhysicsConfig,
    visuals: bool,
    sensors: bool = True,
    excludes: frozenset[tuple[str, str]] = frozenset(),
) -> tuple[mujoco.MjModel, dict[str, Array]]:
    spec = mujoco.MjSpec()
    option = spec.option
    option.timestep = scene.control_dt / cfg.steps
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC if cfg.cone is Cone.elliptic else mujoco.mjtCone.mjCONE_PYRAMIDAL
    option.impratio, option.tolerance = cfg.impratio, cfg.tolerance
    if scene.firm_grip:
        # pyramidal cones let a held object creep out of the hand, the faster the larger its friction
        option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        option.impratio = max(cfg.impratio, scene.firm_grip)
    option.iterations, option.ls_iterations = cfg.iterations, cfg.ls_iterations
    option.gravity = scene.gravity
    spec.compiler.discardvisual = not visuals
    if scene.ground:
        spec.worldbody.add_geom(
            name="ground",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[0.0, 0.0, 0.05],
            rgba=[0.35, 0.37, 0.4, 1.0],
            contype=_SHARED_BIT,
            conaffinity=_EVERYTHING,
        )
    if visuals:
        _add_lights(spec)
    bits = _bits()
    offsets = {}
    for actor in scene.actors:
        if isinstance(actor.asset, Mjcf):
            offsets[actor.name] = _add_asset(spec, actor, actor.asset, next(bits), cfg)
        else:
            _add_primitive(spec, actor, actor.asset, cfg)
            offsets[actor.name] = np.zeros(3)
    for first, second in excludes:
        spec.add_exclude(bodyname1=first, bodyname2=second)
    _check_links(spec, scene)
    if sensors:
        _add_sensors(spec, scene)
    model = _compile(spec)
    if not excludes and any(actor.self_collision for actor in scene.actors):
        overlapping = _overlaps(model, {actor.name for actor in scene.actors if actor.self_collision})
        if overlapping:
            return _build(scene, cfg, visuals, sensors, overlapping)
    return model, offsets


def _compile(spec: mujoco.MjSpec) -> mujoco.MjModel:
    try:
        return spec.compile()
    except ValueError as error:
        raise UsageError(f"MuJoCo cannot compile the scene: {error}") from error


def _bits() -> Iterator[int]:
    """One contact bit per articulated actor; beyond thirty they share the last one."""
    for shift in range(1, 31):
        yield 1 << shift
    while True:
        yield 1 << 30


def _wxyz(quat: Quat) -> list[float]:
    return [quat[3], quat[0], quat[1], quat[2]]


def _turn(quat: Quat, vector: Array) -> Array:
    out = np.zeros(3)
    mujoco.mju_rotVecQuat(out, np.asarray(vector, dtype=np.float64), np.array(_wxyz(quat)))
    return out


def _is_free(actor: Actor) -> bool:
    return not (actor.fixed or actor.marker)


def _base(spec: mujoco.MjSpec, actor: Actor, name: str, pos: Vec3 | Array) -> mujoco.MjsBody:
    """A top-level body at ``pos`` with the actor's orientation and base."""
    body = spec.worldbody.add_body(name=name, pos=list(pos), quat=_wxyz(actor.quat), mocap=actor.marker)
    if _is_free(actor):
        body.add_freejoint(name=f"{actor.name}#free")
    return body


def _add_primitive(spec: mujoco.MjSpec, actor: Actor, asset: Box | Ellipsoid, cfg: PhysicsConfig) -> None:
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
    _set_contact(geom, actor, _SHARED_BIT, own=True, cfg=cfg)
    body.add_site(name=f"{actor.name}#root", group=_HIDDEN)


def _add_asset(spec: mujoco.MjSpec, actor: Actor, asset: Mjcf, bit: int, cfg: PhysicsConfig) -> Array:
    """Attach an MJCF asset; returns the offset from the actor's frame to its free joint's frame."""
    child = _load(asset)
    root = _root(child, asset)
    _strip(child, asset, root)
    pairs = {name for pair in child.pairs for name in (pair.geomname1, pair.geomname2)}
    for geom in child.geoms:
        if geom.contype or geom.conaffinity or geom.name in pairs:
            own = actor.self_collision or bool(geom.contype and geom.conaffinity)
            _set_contact(geom, actor, bit, own, cfg)
    for body in child.bodies:
        body.gravcomp = 0.0 if actor.gravity else 1.0
    for joint in child.joints:
        joint.damping = np.asarray(joint.damping) * cfg.joint_damping_scale
    for actuator in child.actuators:
        actuator.gainprm[0] *= cfg.stiffness_scale
        actuator.biasprm[1] *= cfg.stiffness_scale
    offset = _rest_com(asset) if _is_free(actor) and any(actor.damping) else np.zeros(3)
    prefix = f"{actor.name}/"
    if actor.fixed:
        frame = spec.worldbody.add_frame(pos=list(actor.pos), quat=_wxyz(actor.quat))
        frame.attach_body(root, prefix, "")
        spec.worldbody.add_site(name=f"{actor.name}#root", pos=list(actor.pos), quat=_wxyz(actor.quat), group=_HIDDEN)
    else:
        base = _base(spec, actor, f"{actor.name}#base", np.asarray(actor.pos) + _turn(actor.quat, offset))
        base.add_frame(pos=list(-offset)).attach_body(root, prefix, "")
        base.add_site(name=f"{actor.name}#root", pos=list(-offset), group=_HIDDEN)
    return offset


def _load(asset: Mjcf) -> mujoco.MjSpec:
    if bool(asset.path) == bool(asset.xml):
        raise UsageError("an MJCF asset has either a path or xml text")
    try:
        return mujoco.MjSpec.from_file(asset.path) if asset.path else mujoco.MjSpec.from_string(asset.xml)
    except (ValueError, OSError) as error:
        raise UsageError(f"MuJoCo cannot read the asset {asset.path or '(xml text)'}: {error}") from error


def _root(child: mujoco.MjSpec, asset: Mjcf) -> mujoco.MjsBody:
    root = child.body(asset.root) if asset.root else child.worldbody.first_body()
    if root is None:
        raise UsageError(f"no body '{asset.root}' in the asset {asset.path or '(xml text)'}")
    return root


def _strip(child: mujoco.MjSpec, asset: Mjcf, root: mujoco.MjsBody) -> None:
    """Leave only what the scene wants of an asset."""
    root.pos = [0.0, 0.0, 0.0]
    for joint in list(root.joints):
        if joint.type == mujoco.mjtJoint.mjJNT_FREE:
            child.delete(joint)
    for sensor in list(child.sensors):
        child.delete(sensor)
    if asset.keep_tendons is not None:
        for tendon in list(child.tendons):
            if tendon.name not in asset.keep_tendons:
                child.delete(tendon)
    if asset.frictionless_joints:
        for joint in child.joints:
            joint.frictionloss = 0.0
    seen: set[frozenset[str]] = set()
    for pair in list(child.pairs):
        # the hand's file lists one pair twice; MuJoCo would make two contacts of it, MuJoCo-Warp one
        names = frozenset((pair.geomname1, pair.geomname2))
        if names in seen:
            child.delete(pair)
        seen.add(names)


def load_actor_asset(asset: Mjcf) -> tuple[mujoco.MjModel, int]:
    """The asset by itself as scenes take it, with all its geoms, and the id of its root body.

    Raises:
        UsageError: what MuJoCo cannot read, or no such root.
    """
    child = _load(asset)
    root = _root(child, asset)
    _strip(child, asset, root)
    name = root.name
    model = _compile(child)
    return model, int(model.body(name).id)


@lru_cache(maxsize=16)
def _rest_com(asset: Mjcf) -> Array:
    """Centre of mass of the whole asset in its actor's frame, joints at zero."""
    model, root = load_actor_asset(asset)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data.subtree_com[root].copy()


def _set_contact(geom: mujoco.MjsGeom, actor: Actor, bit: int, own: bool, cfg: PhysicsConfig) -> None:
    if actor.marker:
        geom.contype, geom.conaffinity = 0, 0
        return
    geom.contype = bit
    geom.conaffinity = _EVERYTHING if own else _EVERYTHING & ~bit
    friction = np.array(geom.friction)
    friction[0] = 0.5 * (actor.friction + 1.0)
    geom.friction = friction
    geom.priority = int(actor.friction != 1.0)
    if cfg.contact_time:
        solref = np.array(geom.solref)
        solref[0] = cfg.contact_time
        geom.solref = solref


def _overlaps(model: mujoco.MjModel, actors: set[str]) -> frozenset[tuple[str, str]]:
    """Pairs of one actor's bodies that penetrate in the rest pose."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    found = set()
    for contact in data.contact[: data.ncon]:
        first, second = sorted(model.body(model.geom_bodyid[g]).name for g in contact.geom)
        if contact.dist < 0 and first.split("/")[0] == second.split("/")[0] and first.split("/")[0] in actors:
            found.add((first, second))
    return frozenset(found)


def _add_lights(spec: mujoco.MjSpec) -> None:
    spec.visual.headlight.ambient = [0.25, 0.25, 0.25]
    spec.visual.headlight.diffuse = [0.25, 0.25, 0.25]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    spec.worldbody.add_light(
        pos=[0.6, -0.2, 2.0],
        dir=[-0.3, -0.1, -1.0],
        diffuse=[0.4, 0.4, 0.4],
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
    )
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.86, 0.89, 0.93],
        rgb2=[0.55, 0.6, 0.68],
        width=64,
        height=64,
    )


def _check_links(spec: mujoco.MjSpec, scene: Scene) -> None:
    bodies = {body.name for body in spec.bodies}
    for link in (*scene.links, *scene.force_sensors):
        if link_body(spec, scene, link) not in bodies:
            known = sorted(name for name in bodies if "#" not in name and name != "world")
            raise UsageError(f"no link '{link}' in the scene. Known: {', '.join(known)}.")


def _add_sensors(spec: mujoco.MjSpec, scene: Scene) -> None:
    sensor, obj = mujoco.mjtSensor, mujoco.mjtObj

    def frame(place: tuple[mujoco.mjtObj, str], centre: tuple[mujoco.mjtObj, str]) -> None:
        spec.add_sensor(type=sensor.mjSENS_FRAMEPOS, objtype=place[0], objname=place[1])
        spec.add_sensor(type=sensor.mjSENS_FRAMEQUAT, objtype=place[0], objname=place[1])
        spec.add_sensor(type=sensor.mjSENS_FRAMELINVEL, objtype=centre[0], objname=centre[1])
        spec.add_sensor(type=sensor.mjSENS_FRAMEANGVEL, objtype=place[0], objname=place[1])

    for link in _frame_links(scene):
        body = link_body(spec, scene, link)
        frame((obj.mjOBJ_XBODY, body), (obj.mjOBJ_BODY, body))
    for actor in scene.actors:
        site = (obj.mjOBJ_SITE, f"{actor.name}#root")
        frame(site, (obj.mjOBJ_BODY, link_body(spec, scene, actor.name)) if _is_free(actor) else site)
    for link in scene.force_sensors:
        spec.add_sensor(
            type=sensor.mjSENS_CONTACT,
            objtype=obj.mjOBJ_BODY,
            objname=link_body(spec, scene, link),
            intprm=[_CONTACT_DATA, _NET_FORCE, 1],
        )
        for axis in (sensor.mjSENS_FRAMEXAXIS, sensor.mjSENS_FRAMEYAXIS, sensor.mjSENS_FRAMEZAXIS):
            spec.add_sensor(type=axis, objtype=obj.mjOBJ_XBODY, objname=link_body(spec, scene, link))


def _frame_links(scene: Scene) -> tuple[str, ...]:
    """The links whose frames are read: the registered ones, then those only a force sensor needs."""
    return tuple(dict.fromkeys((*scene.links, *scene.force_sensors)))


def link_body(spec: mujoco.MjSpec | mujoco.MjModel, scene: Scene, link: str) -> str:
    """The MuJoCo body of ``actor/part``, or the root body of ``actor``."""
    if "/" in link or not scene.actors:
        return link
    actor = next((actor for actor in scene.actors if actor.name == link), None)
    if actor is None or not isinstance(actor.asset, Mjcf):
        return link
    return f"{link}/{_root(_load(actor.asset), actor.asset).name}"


def _index(scene: Scene, model: mujoco.MjModel, offsets: dict[str, Array]) -> Compiled:
    """Where the scene's names are in the compiled model."""
    hinges = [j for j in range(model.njnt) if model.jnt_type[j] in (int(_JOINT.mjJNT_HINGE), int(_JOINT.mjJNT_SLIDE))]
    place = {joint: index for index, joint in enumerate(hinges)}
    limited = model.jnt_limited[hinges].astype(bool)
    actors = list(scene.actors)

    def body_id(name: str) -> int:
        found = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
        if found < 0:
            raise UsageError(f"no body '{name}' in the scene")
        return found

    free = [
        mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, f"{actor.name}#free") if _is_free(actor) else -1
        for actor in actors
    ]
    centre = np.zeros((len(actors), 3))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    for index, actor in enumerate(actors):
        if free[index] >= 0:
            base = model.jnt_bodyid[free[index]]
            inverse = (-actor.quat[0], -actor.quat[1], -actor.quat[2], actor.quat[3])
            com = data.xipos[body_id(link_body(model, scene, actor.name))]
            centre[index] = _turn(inverse, com - data.xpos[base])
    links = _frame_links(scene) if not scene.world else ()
    return Compiled(
        model=model,
        actor_names=tuple(actor.name for actor in actors),
        link_names=links,
        sensor_links=np.array([links.index(name) for name in scene.force_sensors], dtype=np.int64),
        dof_names=tuple(model.joint(j).name for j in hinges),
        dof_qpos=model.jnt_qposadr[hinges].astype(np.int64),
        dof_qvel=model.jnt_dofadr[hinges].astype(np.int64),
        dof_lower=np.where(limited, model.jnt_range[hinges, 0], -np.inf),
        dof_upper=np.where(limited, model.jnt_range[hinges, 1], np.inf),
        actuator_dofs=np.array(
            [place.get(int(model.actuator_trnid[u, 0]), -1) for u in range(model.nu)], dtype=np.int64
        ),
        root_qpos=np.array([model.jnt_qposadr[j] if j >= 0 else -1 for j in free], dtype=np.int64),
        root_qvel=np.array([model.jnt_dofadr[j] if j >= 0 else -1 for j in free], dtype=np.int64),
        root_mocap=np.array(
            [
                model.body_mocapid[body_id(f"{a.name}#base" if isinstance(a.asset, Mjcf) else a.name)]
                if a.marker
                else -1
                for a in actors
            ],
            dtype=np.int64,
        ),
        root_offset=np.array([offsets[actor.name] for actor in actors]).reshape(-1, 3),
        root_com=centre,
        wrench_body=np.array(
            [body_id(a.wrench if "/" in a.wrench else f"{a.name}/{a.wrench}") if a.wrench else -1 for a in actors],
            dtype=np.int64,
        ),
        wrench_share=np.ones((len(actors), 2)),
        drag=np.zeros(model.nv),
    )


def _damp(scene: Scene, cfg: PhysicsConfig, compiled: Compiled) -> None:
    """Give damped actors' degrees of freedom the reference engine's per-link drag, and their wrenches its share."""
    model, drag = compiled.model, compiled.drag
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    inertia = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, inertia)
    own = np.diag(inertia) - model.dof_armature
    for index, actor in enumerate(scene.actors):
        if not any(actor.damping):
            continue
        linear, angular = actor.damping
        compiled.wrench_share[index] = [_share(c, cfg.reference_step, actor.name) for c in actor.damping]
        base = compiled.root_qvel[index]
        if base >= 0:
            drag[base : base + 3] += linear * own[base : base + 3]
            drag[base + 3 : base + 6] += angular * own[base + 3 : base + 6]
        if cfg.damp_joints:
            joints = [
                d
                for d, name in zip(compiled.dof_qvel, compiled.dof_names, strict=True)
                if name.startswith(f"{actor.name}/")
            ]
            drag[joints] += linear * own[joints]
    model.dof_damping[:] += drag


def _share(c: float, h: float, name: str) -> float:
    """1 - c h: what damping ``c`` (1/s) leaves of a velocity or an applied force in a reference step ``h`` (s)."""
    if c * h >= 1.0:
        raise UsageError(
            f"damping {c} of actor '{name}' stops it within one reference step of {h:.4g} s; use less than {1 / h:.0f}"
        )
    return 1.0 - c * h
