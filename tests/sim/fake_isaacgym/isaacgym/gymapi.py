"""The calls of ``gymapi`` that the worker makes, each with the rules that the real one has for it."""

import ctypes
import os
import signal
import time

import mujoco
import numpy as np

from isaacgym.driver import Driver

SIM_PHYSX, UP_AXIS_Z, ENV_SPACE, DOMAIN_SIM, CC_NEVER = 1, 1, 0, 2, 0
DOF_MODE_NONE, DOF_MODE_POS = 0, 1
DTYPE_FLOAT32, DTYPE_UINT32, INVALID_HANDLE = 0, 1, -1
_NUMPY = {DTYPE_FLOAT32: np.float32, DTYPE_UINT32: np.uint32}
_DOF = [
    *[("hasLimits", "?"), ("lower", "f4"), ("upper", "f4"), ("driveMode", "i4"), ("velocity", "f4"), ("effort", "f4")],
    *[("stiffness", "f4"), ("damping", "f4"), ("friction", "f4"), ("armature", "f4")],
]


class Vec3:
    def __init__(self, x=0.0, y=0.0, z=0.0):
        self.x, self.y, self.z = float(x), float(y), float(z)


class Quat:
    def __init__(self, x=0.0, y=0.0, z=0.0, w=1.0):
        self.x, self.y, self.z, self.w = float(x), float(y), float(z), float(w)


class Transform:
    def __init__(self):
        self.p, self.r = Vec3(), Quat()


class _Fields:
    """Attributes that exist may be set, others not: like a bound C++ struct."""

    NAMES = ()

    def __init__(self):
        for name in self.NAMES:
            object.__setattr__(self, name, None)

    def __setattr__(self, name, value):
        if name not in self.NAMES:
            raise AttributeError(f"{type(self).__name__} has no {name}")
        object.__setattr__(self, name, value)


class Tensor(_Fields):
    """Where numbers are, and of what kind; it does not own them."""

    NAMES = ("device", "dtype", "shape", "data_address", "own_data", "array")

    def read(self, dtype, count, device):
        _need(self.own_data is False, "memory that is the caller's")
        _need(self.device == device, f"a tensor on device {self.device} where the pipeline is on {device}")
        _need(self.dtype == dtype, f"numbers of kind {self.dtype}, not {dtype}")
        _need(int(np.prod(self.shape)) >= count, f"{count} numbers wanted, and {self.shape} are there")
        pointer = ctypes.cast(self.data_address, ctypes.POINTER(ctypes.c_char * (4 * count)))
        return np.frombuffer(pointer.contents, _NUMPY[dtype]).copy()


class PhysXParams(_Fields):
    NAMES = (
        *("use_gpu", "solver_type", "num_position_iterations", "num_velocity_iterations", "contact_offset"),
        *("rest_offset", "bounce_threshold_velocity", "max_depenetration_velocity", "default_buffer_size_multiplier"),
        *("max_gpu_contact_pairs", "num_threads", "num_subscenes", "contact_collection", "friction_offset_threshold"),
    )


class SimParams(_Fields):
    NAMES = ("dt", "substeps", "up_axis", "gravity", "use_gpu_pipeline", "num_client_threads", "physx")

    def __init__(self):
        super().__init__()
        self.physx = PhysXParams()


class AssetOptions(_Fields):
    NAMES = (
        *("fix_base_link", "disable_gravity", "linear_damping", "angular_damping", "density", "collapse_fixed_joints"),
        *("thickness", "use_physx_armature", "default_dof_drive_mode", "armature", "flip_visual_attachments"),
    )


class PlaneParams(_Fields):
    NAMES = ("normal", "distance", "static_friction", "dynamic_friction", "restitution")


class _Shape:
    friction = 1.0


class _Tendon:
    limit_stiffness = damping = 0.0


class Asset:
    def __init__(self, path, options):
        self.path, self.options = path, options
        self.model = mujoco.MjModel.from_xml_path(path)
        self.links = [self.model.body(b).name for b in range(1, self.model.nbody)]
        free = mujoco.mjtJoint.mjJNT_FREE
        self.free = self.model.jnt_type[0] == free if self.model.njnt else False
        self.joints = [self.model.joint(j).name for j in range(self.model.njnt) if self.model.jnt_type[j] != free]
        self.tendons = [_Tendon() for _ in range(self.model.ntendon)]
        self.sensors = []
        self.used = False


class _Actor:
    def __init__(self, asset, pose, name, marker):
        self.asset, self.pose, self.name, self.marker = asset, pose, name, marker
        self.properties = np.zeros(len(asset.joints), dtype=_DOF)
        self.forces = False
        self.friction = 1.0


class _Env:
    def __init__(self):
        self.actors, self.open = [], False


class _Sim:
    def __init__(self, params):
        self.params, self.envs, self.ground, self.prepared = params, [], False, False


def _need(truth, rule):
    if not truth:
        raise RuntimeError(rule)


def _printf(text):
    """As PhysX prints: through C's own buffer, which Python does not flush."""
    ctypes.CDLL(None).puts(text.encode())


class Gym:
    """One simulation at most."""

    def __init__(self):
        self.sim, self.called, self.fetched, self.groups = None, set(), True, set()
        self.steps = -1  # the first is the engine's trial
        self.chaos = dict(pair.split("=") for pair in os.environ.get("FAKE_GYM", "").split(",") if pair)

    # ---- making ------------------------------------------------------------------------------------------------

    def _result(self, call, result):
        """``result``, unless this call is to fail as the real one does: with False, or the number of nothing."""
        if self.chaos.get("fail") != call:
            return result
        return INVALID_HANDLE if isinstance(result, int) and not isinstance(result, bool) else False

    def create_sim(self, compute, graphics, kind, params):
        _need(self.sim is None, "one simulation per process")
        _need(kind == SIM_PHYSX, "PhysX must be asked for")
        _need(graphics == -1, "no Vulkan on a server")
        _need(params.dt > 0 and params.substeps >= 1 and params.physx.solver_type == 1, "parameters")
        _need(params.physx.use_gpu or not params.use_gpu_pipeline, "the GPU pipeline is of PhysX on a GPU")
        if "refuse" in self.chaos:
            return None
        self.device = compute if params.use_gpu_pipeline else -1
        _printf(f"PhysX on a GPU: {params.physx.use_gpu}, GPU pipeline: {params.use_gpu_pipeline}")
        self.sim = _Sim(params)
        return self.sim

    def add_ground(self, sim, plane):
        sim.ground = True

    def load_asset(self, sim, root, file, options):
        return Asset(os.path.join(root, file), options) if self.chaos.get("fail") != "load_asset" else None

    def get_asset_rigid_body_names(self, asset):
        return list(asset.links)

    def get_asset_rigid_body_count(self, asset):
        return len(asset.links)

    def get_asset_rigid_shape_count(self, asset):
        return int(asset.model.ngeom)

    def get_asset_dof_names(self, asset):
        return list(asset.joints)

    def get_asset_tendon_count(self, asset):
        return len(asset.tendons) - (self.chaos.get("lose") == "tendon")

    def get_asset_tendon_name(self, asset, i):
        return asset.model.tendon(i).name

    def get_asset_tendon_properties(self, asset):
        return asset.tendons

    def set_asset_tendon_properties(self, asset, properties):
        asset.tendons = properties
        return self._result("set_asset_tendon_properties", True)

    def create_asset_force_sensor(self, asset, body, pose):
        _need(not asset.used, "sensors belong to assets and come before actors")
        asset.sensors.append(asset.links[body])
        return self._result("create_asset_force_sensor", len(asset.sensors) - 1)

    def create_env(self, sim, lower, upper, per_row):
        _need(not sim.prepared, "environments come before prepare_sim")
        sim.envs.append(_Env())
        return sim.envs[-1]

    def begin_aggregate(self, env, bodies, shapes, self_collision):
        env.open, env.room = True, bodies
        return self._result("begin_aggregate", True)

    def create_actor(self, env, asset, pose, name, group, filter_, segmentation=0):
        _need(env.open, "actors of an aggregate come between its begin and end")
        asset.used = True
        _need(group % len(self.sim.envs) == len(self.sim.envs) - 1 or group >= len(self.sim.envs) - 1, "groups")
        marker = group != self.sim.envs.index(env)
        _need(not marker or group not in self.groups, "two actors of one collision group touch")
        self.groups.add(group)
        env.actors.append(_Actor(asset, pose, name, marker))
        return self._result("create_actor", len(env.actors) - 1)

    def end_aggregate(self, env):
        _need(sum(len(a.asset.links) for a in env.actors) <= env.room, "more bodies than the aggregate has room for")
        env.open = False
        return self._result("end_aggregate", None)  # success: not every call that promises a bool returns one

    def get_actor_index(self, env, handle, domain):
        before = self.sim.envs[: self.sim.envs.index(env)]
        return sum(len(other.actors) for other in before) + handle

    def get_actor_rigid_shape_properties(self, env, handle):
        return [_Shape() for _ in range(env.actors[handle].asset.model.ngeom)]

    def set_actor_rigid_shape_properties(self, env, handle, shapes):
        env.actors[handle].friction = shapes[0].friction
        return self._result("set_actor_rigid_shape_properties", True)

    def get_actor_dof_names(self, env, handle):
        return list(env.actors[handle].asset.joints)

    def get_actor_dof_properties(self, env, handle):
        return env.actors[handle].properties.copy()

    def set_actor_dof_properties(self, env, handle, properties):
        _need(not self.sim.prepared, "properties come before prepare_sim")
        env.actors[handle].properties = properties.copy()
        return self._result("set_actor_dof_properties", True)

    def enable_actor_dof_force_sensors(self, env, handle):
        env.actors[handle].forces = True
        return self._result("enable_actor_dof_force_sensors", True)

    # ---- running -----------------------------------------------------------------------------------------------

    def prepare_sim(self, sim):
        actors = sim.envs[0].actors
        self.model = _compose(sim, actors, fixes="fixes" in self.chaos)
        self.index = [_Place(self.model, i, actor) for i, actor in enumerate(actors)]
        self.data = [mujoco.MjData(self.model) for _ in sim.envs]
        for data in self.data:
            mujoco.mj_forward(self.model, data)
        e = len(sim.envs)
        bodies, dofs = sum(len(p.bodies) for p in self.index), sum(len(p.dofs) for p in self.index)
        sensors = sum(len(a.asset.sensors) for a in actors)
        self.root, self.body = self._tensor(e * len(actors), 13), self._tensor(e * bodies, 13)
        self.dof, self.dof_force = self._tensor(e * dofs, 2), self._tensor(e * dofs)
        self.sensor, self.acquired = self._tensor(e * sensors, 6), []
        self.targets, self.push = np.zeros((e, dofs)), np.zeros((e, bodies, 6))
        self.links = self._links()
        sim.prepared, Driver.current = True, None
        return self._result("prepare_sim", True)

    def _tensor(self, *shape):
        """Not a number until it is refreshed."""
        tensor = Tensor()
        tensor.array = np.full(shape, np.nan, dtype=np.float32)
        tensor.device, tensor.dtype, tensor.shape = self.device, DTYPE_FLOAT32, shape
        tensor.data_address, tensor.own_data = tensor.array.ctypes.data, True
        return tensor

    def acquire_actor_root_state_tensor(self, sim):
        return self._acquired(self.root)

    def acquire_rigid_body_state_tensor(self, sim):
        return self._acquired(self.body)

    def acquire_dof_state_tensor(self, sim):
        return self._acquired(self.dof)

    def acquire_dof_force_tensor(self, sim):
        _need(all(a.forces for a in self.sim.envs[0].actors if a.asset.joints), "joint forces were not enabled")
        return self._acquired(self.dof_force)

    def acquire_force_sensor_tensor(self, sim):
        return self._acquired(self.sensor)

    def _acquired(self, tensor):
        _need(self.sim.prepared, "tensors come after prepare_sim")
        self.acquired.append(tensor)
        return tensor

    def _refresh(self, tensor, rows):
        _need(tensor in self.acquired, "a tensor is acquired before it is refreshed")
        _need(self.fetched, "fetch_results comes before a refresh")
        tensor.array[:] = np.array(rows, dtype=np.float32).reshape(tensor.shape)
        return True

    def refresh_actor_root_state_tensor(self, sim):
        return self._refresh(self.root, [[place.root(data) for place in self.index] for data in self.data])

    def refresh_rigid_body_state_tensor(self, sim):
        return self._refresh(self.body, self.links)  # as the last step left them, whatever was set since

    def refresh_dof_state_tensor(self, sim):
        rows = [[(d.qpos[q], d.qvel[v]) for p in self.index for q, v in p.dofs] for d in self.data]
        return self._refresh(self.dof, rows)

    def refresh_dof_force_tensor(self, sim):
        rows = [[d.qfrc_applied[v] for p in self.index for _, v in p.dofs] for d in self.data]
        return self._result("refresh_dof_force_tensor", self._refresh(self.dof_force, rows))

    def refresh_force_sensor_tensor(self, sim):
        rows = [[_touch(self.model, d, b) for p in self.index for b in p.sensors] for d in self.data]
        return self._refresh(self.sensor, rows)

    def _floats(self, tensor, shape):
        return tensor.read(DTYPE_FLOAT32, int(np.prod(tensor.shape)), self.device).reshape(shape).astype(np.float64)

    def _ids(self, tensor, count):
        return tensor.read(DTYPE_UINT32, count, self.device).tolist()

    def _once(self, name):
        _need(name not in self.called, f"{name} was called twice in one step")
        self.called.add(name)

    def set_actor_root_state_tensor_indexed(self, sim, states, ids, count):
        self._once("set_actor_root_state_tensor_indexed")
        rows, which = self._floats(states, self.root.array.shape), self._ids(ids, count)
        _need(len(set(which)) == count, "actor numbers must be unique")
        for i in which:
            self.index[i % len(self.index)].put(self.data[i // len(self.index)], rows[i])
        return self._result("set_actor_root_state_tensor_indexed", True)

    def set_dof_state_tensor_indexed(self, sim, states, ids, count):
        self._once("set_dof_state_tensor_indexed")
        rows = self._floats(states, (len(self.data), -1, 2))
        starts = np.cumsum([0] + [len(p.dofs) for p in self.index])
        for i in self._ids(ids, count):
            e, a = divmod(i, len(self.index))
            _need(self.index[a].dofs, "an actor without joints was given joint states")
            for k, (q, v) in enumerate(self.index[a].dofs):
                self.data[e].qpos[q], self.data[e].qvel[v] = rows[e, starts[a] + k].tolist()
        return True

    def set_dof_position_target_tensor(self, sim, targets):
        self._once("set_dof_position_target_tensor")
        self.targets = self._floats(targets, self.targets.shape)
        return True

    def apply_rigid_body_force_tensors(self, sim, force, torque, space):
        self._once("apply_rigid_body_force_tensors")
        _need(space == ENV_SPACE, "the contract's axes are the environment's")
        shape = (*self.push.shape[:2], 3)
        self.push = np.concatenate([self._floats(part, shape) for part in (force, torque)], -1)
        return True

    def simulate(self, sim):
        self.steps += 1
        if self.chaos.get("die") == str(self.steps):
            _printf("PhysX error: out of luck")
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.chaos.get("hang") == str(self.steps):
            time.sleep(60)
        if self.chaos.get("overflow") == str(self.steps):
            where, what = "PxgAABBManager.cpp (1048) : invalid parameter", "foundLostAggregatePairsCapacity"
            _printf(f"{where} : The application need to increase the PxgDynamicsMemoryConfig::{what} parameter to 4120")
            _printf("PxgNarrowphaseCore.cpp (2185) : internal error : Contact buffer overflow detected")
        properties = np.concatenate([a.properties for a in sim.envs[0].actors])
        velocity = [v for p in self.index for _, v in p.dofs]
        position = [q for p in self.index for q, _ in p.dofs]
        bodies = [b for p in self.index for b in p.bodies]
        for e, data in enumerate(self.data):
            data.xfrc_applied[bodies] = self.push[e]
            for _ in range(sim.params.substeps):
                drive = properties["stiffness"] * (self.targets[e] - data.qpos[position])
                data.qfrc_applied[velocity] = np.clip(drive, -properties["effort"], properties["effort"])
                mujoco.mj_step(self.model, data)
            mujoco.mj_forward(self.model, data)
            if self.chaos.get("nan") in (f"{self.steps}@{e}", f"always@{e}") and self.steps:
                data.qvel[:] = np.nan
        self.push[:] = 0.0
        self.links = self._links()
        self.called.clear()
        self.fetched = False

    def fetch_results(self, sim, wait):
        _need(wait, "results are awaited")
        Driver.current = None  # PhysX has contexts of its own
        self.fetched = True

    def _links(self):
        return np.array([[_frame(self.model, d, b) for p in self.index for b in p.bodies] for d in self.data])


def acquire_gym():
    return Gym()


# ---- MuJoCo underneath ---------------------------------------------------------------------------------------------


def _compose(sim, actors, fixes):
    spec = mujoco.MjSpec()
    spec.option.timestep = sim.params.dt / sim.params.substeps
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.gravity = [sim.params.gravity.x, sim.params.gravity.y, sim.params.gravity.z]
    if sim.ground:
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1])
    for i, actor in enumerate(actors):
        child = mujoco.MjSpec.from_file(actor.asset.path)
        for joint in child.joints:
            joint.damping = np.asarray(joint.damping) * 0.0
        for geom in child.geoms:
            if actor.marker:
                geom.contype = geom.conaffinity = 0
        for body in child.bodies:
            body.gravcomp = float(actor.asset.options.disable_gravity)
        p, r = actor.pose.p, actor.pose.r
        place = {"pos": [p.x, p.y, p.z], "quat": [r.w, r.x, r.y, r.z]}
        frame = spec.worldbody.add_frame(**place)
        frame.attach_body(child.worldbody.first_body(), f"{i}/", "")
        if actor.asset.free and (fixes or actor.asset.options.fix_base_link):
            spec.delete(spec.body(f"{i}/{actor.asset.links[0]}").first_joint())
    model = spec.compile()
    for i, actor in enumerate(actors):
        for row, joint in zip(actor.properties, actor.asset.joints, strict=True):
            assert row["driveMode"] == DOF_MODE_POS
            model.dof_damping[model.joint(f"{i}/{joint}").dofadr[0]] = row["damping"]
    return model


class _Place:
    """Where one actor's numbers are in MuJoCo's."""

    def __init__(self, model, i, actor):
        self.model, self.marker, self.fixed = model, actor.marker, actor.asset.options.fix_base_link
        self.bodies = [model.body(f"{i}/{name}").id for name in actor.asset.links]
        self.sensors = [model.body(f"{i}/{name}").id for name in actor.asset.sensors]
        joints = [model.joint(f"{i}/{name}") for name in actor.asset.joints]
        self.dofs = [(int(j.qposadr[0]), int(j.dofadr[0])) for j in joints]
        free = model.body_jntadr[self.bodies[0]]  # only a root that has a free joint can move
        self.free = (int(model.jnt_qposadr[free]), int(model.jnt_dofadr[free])) if free >= 0 else None

    def root(self, data):
        return _frame(self.model, data, self.bodies[0])

    def put(self, data, row):
        _need(not self.fixed, "a fixed actor was moved")
        if self.free is None:
            return
        q, v = self.free
        data.qpos[q : q + 3], data.qpos[q + 3 : q + 7] = row[:3], row[[6, 3, 4, 5]]
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, data.qpos[q + 3 : q + 7])
        rotation = rotation.reshape(3, 3)
        lever = rotation @ self.model.body_ipos[self.bodies[0]]
        data.qvel[v : v + 3] = row[7:10] - np.cross(row[10:13], lever)  # the linear velocity is the centre of mass's
        data.qvel[v + 3 : v + 6] = rotation.T @ row[10:13]


def _frame(model, data, body):
    twist = np.zeros(6)
    mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body, twist, 0)
    quat = data.xquat[body]
    return [*data.xpos[body], quat[1], quat[2], quat[3], quat[0], *twist[3:], *twist[:3]]


def _touch(model, data, body):
    total, force = np.zeros(6), np.zeros(6)
    for i in range(data.ncon):
        contact = data.contact[i]
        for side, geom in enumerate((contact.geom1, contact.geom2)):
            if model.geom_bodyid[geom] == body:
                mujoco.mj_contactForce(model, data, i, force)
                total[:3] += (1.0 if side else -1.0) * contact.frame.reshape(3, 3).T @ force[:3]
    total[:3] = data.xmat[body].reshape(3, 3).T @ total[:3]
    return total
