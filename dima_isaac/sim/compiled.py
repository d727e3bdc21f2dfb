"""The physics model of a scene and where the scene's names are in it: what every engine is built from.

Damping. PhysX steps every link of an articulation by v <- (v + F h / m)(1 - c h) under an applied force F, and adds
the impulses of drives and contacts after that. So c per unit of mass is the drag, and 1 - c h of an applied force (a
sixth, at c = 100 and h = 1/120) is what a drive or a contact has to balance. A drag proportional to mass on every link
is, in joint space, c times the mass matrix; its diagonal at rest is added to ``dof_damping`` (implicit in every
integrator used here), and the small coupling of base and fingers is left out.
"""

from dataclasses import dataclass

import mujoco
import numpy as np

from dima_isaac.errors import UsageError
from dima_isaac.sim.config import PhysicsConfig
from dima_isaac.sim.model import build_model, compile_world, frame_links, link_body, rotated
from dima_isaac.sim.scene import Actor, Mjcf, Scene

Array = np.ndarray
STATE_FIELDS = ("qpos", "qvel", "act", "ctrl", "qfrc_applied", "xfrc_applied", "mocap_pos", "mocap_quat")
"""The raw fields of MuJoCo that can be written."""
REFERENCE_STEP = 1.0 / 120.0  # s; Bi-DexHands' physics step
_DOF_TYPES = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))


@dataclass(frozen=True)
class Compiled:
    """A physics model and where to find the scene's names in it.

    ``sensordata`` is L link frames, then A actor frames (wxyz), then S contact wrenches in world axes.
    """

    model: mujoco.MjModel
    actor_names: tuple[str, ...]
    link_names: tuple[str, ...]  # those of the scene, then those that only a force sensor needs
    sensor_links: Array  # (S,) index into ``link_names`` of every force sensor
    dof_names: tuple[str, ...]
    dof_qpos: Array  # (dofs,) address in qpos
    dof_qvel: Array  # (dofs,) address in qvel
    dof_lower: Array  # (dofs,) limits in rad or m, infinite where there are none
    dof_upper: Array  # (dofs,)
    actuator_dofs: Array  # (U,)
    root_qpos: Array  # (A,) address of the free joint's seven numbers, -1 without one
    root_qvel: Array  # (A,) address of its six, -1 without one
    root_mocap: Array  # (A,) mocap index of a marker, -1 for others
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
    model, offsets = build_model(scene, cfg, visuals=False, sensors=sensors)
    compiled = _index(scene, model, offsets)
    _damp(scene, compiled)
    return compiled


def _index(scene: Scene, model: mujoco.MjModel, offsets: dict[str, Array]) -> Compiled:
    """Where the scene's names are in the compiled model, without damping."""
    joints = np.flatnonzero(np.isin(model.jnt_type, _DOF_TYPES))
    dof_of_joint = {int(joint): dof for dof, joint in enumerate(joints)}
    limited = model.jnt_limited[joints].astype(bool)
    actors = list(scene.actors)
    links = () if scene.world else frame_links(scene)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    roots = [_root(model, data, scene, actor) for actor in actors]
    addresses = np.array([address for address, _ in roots], dtype=np.int64).reshape(-1, 3)
    drives = [dof_of_joint.get(int(model.actuator_trnid[u, 0]), -1) for u in range(model.nu)]
    wrenches = [f"{actor.name}/{actor.wrench}" if actor.wrench else "" for actor in actors]
    return Compiled(
        model=model,
        actor_names=tuple(actor.name for actor in actors),
        link_names=links,
        sensor_links=np.array([links.index(name) for name in scene.force_sensors], dtype=np.int64),
        dof_names=tuple(model.joint(joint).name for joint in joints),
        dof_qpos=model.jnt_qposadr[joints].astype(np.int64),
        dof_qvel=model.jnt_dofadr[joints].astype(np.int64),
        dof_lower=np.where(limited, model.jnt_range[joints, 0], -np.inf),
        dof_upper=np.where(limited, model.jnt_range[joints, 1], np.inf),
        actuator_dofs=np.array(drives, dtype=np.int64),
        root_qpos=addresses[:, 0],
        root_qvel=addresses[:, 1],
        root_mocap=addresses[:, 2],
        root_offset=np.array([offsets[actor.name] for actor in actors]).reshape(-1, 3),
        root_com=np.array([com for _, com in roots]).reshape(-1, 3),
        wrench_body=np.array([_body(model, name) if name else -1 for name in wrenches], dtype=np.int64),
        wrench_share=np.ones((len(actors), 2)),
        drag=np.zeros(model.nv),
    )


def _body(model: mujoco.MjModel, name: str) -> int:
    found = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
    if found < 0:
        raise UsageError(f"no body '{name}' in the scene")
    return int(found)


def _root(model: mujoco.MjModel, data: mujoco.MjData, scene: Scene, actor: Actor) -> tuple[tuple[int, int, int], Array]:
    """An actor's addresses in qpos, qvel and the mocap arrays, -1 for none; and ``Compiled.root_com``."""
    if actor.marker:
        body = _body(model, f"{actor.name}#base" if isinstance(actor.asset, Mjcf) else actor.name)
        return (-1, -1, int(model.body_mocapid[body])), np.zeros(3)
    if actor.fixed:
        return (-1, -1, -1), np.zeros(3)
    joint = model.joint(f"{actor.name}#free").id
    x, y, z, w = actor.quat
    com = data.xipos[_body(model, link_body(scene, actor.name))] - data.xpos[model.jnt_bodyid[joint]]
    return (int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint]), -1), rotated((-x, -y, -z, w), com)


def _damp(scene: Scene, compiled: Compiled) -> None:
    """Add the reference engine's per-link drag to damped actors' degrees of freedom, and note their wrenches' share."""
    model = compiled.model
    drag, share = compiled.drag, compiled.wrench_share
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    inertia = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, inertia)
    mass = np.diag(inertia) - model.dof_armature
    for index, actor in enumerate(scene.actors):
        if not any(actor.damping):
            continue
        linear, angular = actor.damping
        share[index] = [_share(c, actor.name) for c in actor.damping]
        base = compiled.root_qvel[index]
        if base >= 0:
            drag[base : base + 3] += linear * mass[base : base + 3]
            drag[base + 3 : base + 6] += angular * mass[base + 3 : base + 6]
        dofs = zip(compiled.dof_qvel, compiled.dof_names, strict=True)
        joints = [dof for dof, name in dofs if name.startswith(f"{actor.name}/")]
        drag[joints] += linear * mass[joints]
    model.dof_damping[:] += drag


def _share(c: float, name: str) -> float:
    """1 - c h: what damping ``c`` (1/s) leaves of a velocity or an applied force in a reference step h."""
    h = REFERENCE_STEP
    if c * h >= 1.0:
        raise UsageError(
            f"damping {c} of actor '{name}' stops it within one reference step of {h:.4g} s; use less than {1 / h:.0f}"
        )
    return 1.0 - c * h
