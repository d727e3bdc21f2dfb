"""Isaac Gym Preview 4 in a process of its own: runs under the user's Python 3.8 and imports nothing of this package.

    python3.8 worker.py FD

Commands come as JSON through the descriptor of a ``multiprocessing`` pipe and are answered there. Numbers are in
buffers that both processes map: a file of shared memory, or GPU memory opened through CUDA IPC. This process computes
nothing with them: it hands buffers to Isaac Gym's setters and copies Isaac Gym's tensors into buffers, whole and in
their own order. So it needs neither torch, whose last release for Python 3.8 has no kernels for newer GPUs, nor
gymtorch, which has to be compiled. What the numbers mean is ``engine.py``'s part.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Dict, List, Optional, Tuple

from isaacgym import gymapi

_DEVICE_UNAVAILABLE = 46  # CUDA_ERROR_DEVICE_UNAVAILABLE
Spec = Dict[str, Any]


class Failure(Exception):
    """An error whose message is enough for the user."""


def main(argv: List[str]) -> None:
    """Carry out commands until ``close`` or until the other process has ended."""
    # they are sent to all processes of a run: the other one saves and ends, and needs physics until then
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pipe: Any = Connection(int(argv[1]))
    worker: Any = None
    with suppress(EOFError, OSError):  # the other process has ended
        while True:
            command = json.loads(pipe.recv_bytes())
            answer: Spec = {}
            try:
                if command["do"] == "close":
                    break
                if command["do"] == "create":
                    worker = Worker(command)
                    answer = worker.names
                else:
                    getattr(worker, command["do"])(command)
            except Exception as error:  # whatever it is, it is reported to the other process
                traceback.print_exc()
                answer = {"error": str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"}
            pipe.send_bytes(json.dumps(answer).encode())
    # Isaac Gym is known to crash while the interpreter ends
    os._exit(0)


def _made(result: Any, call: str, of: str = "") -> Any:
    """``result``, a new object or its number, if Isaac Gym has made it."""
    if result is None or (isinstance(result, int) and result == gymapi.INVALID_HANDLE):
        raise Failure(f"Isaac Gym's {call} failed{of and f' for {of}'}; its own messages say why")
    return result


def _did(result: Any, call: str, of: str = "") -> None:
    """Refuse the False of a call that reports success; some that promise a bool return None."""
    if result is False:
        raise Failure(f"Isaac Gym's {call} failed{of and f' for {of}'}; its own messages say why")


class _Cuda:
    """Calls of the CUDA driver, in the device's primary context, which is the one that Isaac Gym's tensors are in."""

    def __init__(self, index: int) -> None:
        self.driver, self.context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
        self("cuInit", 0)
        self("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), index)
        self("cuCtxSetCurrent", self.context)

    def __call__(self, name: str, *arguments: Any) -> None:
        code = getattr(self.driver, name)(*arguments)
        if code == _DEVICE_UNAVAILABLE:
            raise Failure(
                "the GPU takes no second process, so it is in exclusive-process mode, or prohibited: set it to default"
                " (nvidia-smi -c DEFAULT; clusters have an option for it), run CUDA MPS, or choose another sim_device"
            )
        if code:
            raise Failure(f"CUDA's {name} failed with error {code}")

    def open(self, handle: bytes) -> int:
        """The address here of another process' GPU memory."""

        class Handle(ctypes.Structure):
            _fields_ = [("reserved", ctypes.c_char * 64)]

        pointer = ctypes.c_uint64()
        self("cuCtxSetCurrent", self.context)  # PhysX may leave another, or none
        code = self.driver.cuIpcOpenMemHandle_v2(ctypes.byref(pointer), Handle.from_buffer_copy(handle), 1)
        if code:
            raise Failure(f"CUDA error {code} while opening shared GPU memory; engine.pipeline=cpu does without")
        return pointer.value

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy ``size`` bytes within the GPU's memory."""
        self("cuMemcpyDtoD_v2", ctypes.c_uint64(to), ctypes.c_uint64(source), ctypes.c_size_t(size))


class Worker:
    """One simulation and the buffers that both processes see.

    ``names`` are the links and joints of each actor, in the order of Isaac Gym's tensors. Those of every environment
    follow each other, actor by actor.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec, self.gym = spec, gymapi.acquire_gym()
        self.envs: int = spec["num_envs"]
        device, _, index = spec["device"].partition(":")
        self.on_gpu, self.index = device == "cuda", int(index or 0)
        context = _Cuda(self.index) if self.on_gpu else None  # before PhysX, which may crash where it gets none
        self.cuda: Optional[_Cuda] = context if spec["gpu_pipeline"] else None
        self.sim = self._create_sim()
        assets = [self._load(actor) for actor in spec["actors"]]
        self._create_world(assets)
        _did(self.gym.prepare_sim(self.sim), "prepare_sim")
        self.names = {
            "links": [self.gym.get_asset_rigid_body_names(asset) for asset in assets],
            "joints": [self.gym.get_asset_dof_names(asset) for asset in assets],
        }
        self.has_dofs, self.has_sensors = any(self.names["joints"]), any(a["sensors"] for a in spec["actors"])

    # ---- the simulation ----------------------------------------------------------------------------------------

    def _create_sim(self) -> gymapi.Sim:
        spec, params = self.spec, gymapi.SimParams()
        params.dt, params.substeps = spec["dt"], spec["substeps"]
        params.up_axis = gymapi.UP_AXIS_Z
        params.gravity = gymapi.Vec3(*spec["gravity"])
        params.physx.use_gpu, params.use_gpu_pipeline = self.on_gpu, spec["gpu_pipeline"]
        params.physx.solver_type = 1  # temporal Gauss-Seidel
        params.physx.contact_collection = gymapi.CC_NEVER  # forces are read from sensors
        for name, value in spec["physx"].items():
            setattr(params.physx, name, value)
        # graphics device -1: no Vulkan, which is what crashes on servers; the other process draws the pictures
        sim: gymapi.Sim = _made(self.gym.create_sim(self.index, -1, gymapi.SIM_PHYSX, params), "create_sim")
        if spec["ground"]:
            plane = gymapi.PlaneParams()
            plane.normal = gymapi.Vec3(0.0, 0.0, 1.0)
            self.gym.add_ground(sim, plane)
        return sim

    def _load(self, actor: Spec) -> gymapi.Asset:
        gym, name, options = self.gym, actor["name"], gymapi.AssetOptions()
        options.fix_base_link, options.disable_gravity = actor["fixed"], not actor["gravity"]
        options.linear_damping, options.angular_damping = actor["damping"]
        options.density = actor["density"]
        options.collapse_fixed_joints = False
        options.thickness = 0.001
        options.use_physx_armature = True
        options.default_dof_drive_mode = int(gymapi.DOF_MODE_NONE)
        asset: gymapi.Asset = gym.load_asset(self.sim, self.spec["folder"], actor["file"], options)
        _made(asset, f"load_asset({actor['file']})", name)
        links, tendons = gym.get_asset_rigid_body_names(asset), {}
        for i in range(gym.get_asset_tendon_count(asset)):
            tendons[gym.get_asset_tendon_name(asset, i)] = i
        for kind, found in (("links", links), ("dofs", gym.get_asset_dof_names(asset)), ("tendons", tendons)):
            missing = [part for part in actor[kind] if part not in found]
            if missing:
                raise Failure(f"Isaac Gym's importer lost {', '.join(missing)} of {name}")
        extra = [joint for joint in gym.get_asset_dof_names(asset) if joint not in actor["dofs"]]
        if extra:
            raise Failure(f"Isaac Gym's importer made joints of {', '.join(extra)} of {name}")
        if actor["tendons"]:
            properties = gym.get_asset_tendon_properties(asset)
            for tendon in actor["tendons"]:
                for key, value in self.spec["tendons"].items():
                    setattr(properties[tendons[tendon]], key, value)
            _did(gym.set_asset_tendon_properties(asset, properties), "set_asset_tendon_properties", name)
        for link in actor["sensors"]:
            sensor = gym.create_asset_force_sensor(asset, links.index(link), gymapi.Transform())
            _made(sensor, "create_asset_force_sensor", f"{name}/{link}")
        return asset

    def _create_world(self, assets: List[gymapi.Asset]) -> None:
        gym, spec = self.gym, self.spec
        bodies = sum(gym.get_asset_rigid_body_count(asset) for asset in assets)
        shapes = sum(gym.get_asset_rigid_shape_count(asset) for asset in assets)
        side, per_row, order = spec["spacing"], max(1, int(self.envs**0.5)), []
        markers = [actor["name"] for actor in spec["actors"] if actor["marker"]]
        for e in range(self.envs):
            env = gym.create_env(self.sim, gymapi.Vec3(-side, -side, 0.0), gymapi.Vec3(side, side, side), per_row)
            _made(env, "create_env", f"environment {e}")
            _did(gym.begin_aggregate(env, bodies, shapes, True), "begin_aggregate", f"environment {e}")
            for actor, asset in zip(spec["actors"], assets):
                pose = gymapi.Transform()
                pose.p, pose.r = gymapi.Vec3(*actor["pose"][:3]), gymapi.Quat(*actor["pose"][3:])
                # each goal marker is in a collision group of its own, where there is nothing to touch
                group = e + self.envs * (1 + markers.index(actor["name"]) if actor["marker"] else 0)
                handle = gym.create_actor(env, asset, pose, actor["name"], group, actor["filter"], 0)
                _made(handle, "create_actor", actor["name"])
                self._set_properties(env, handle, actor)
                order.append(gym.get_actor_index(env, handle, gymapi.DOMAIN_SIM))
            _did(gym.end_aggregate(env), "end_aggregate", f"environment {e}")
        if order != list(range(self.envs * len(assets))):
            raise Failure("Isaac Gym did not number the actors in the order of their creation")

    def _set_properties(self, env: gymapi.Env, handle: int, actor: Spec) -> None:
        gym, name = self.gym, actor["name"]
        shapes = gym.get_actor_rigid_shape_properties(env, handle)
        for shape in shapes:
            shape.friction = actor["friction"]
        done = gym.set_actor_rigid_shape_properties(env, handle, shapes)
        _did(done, "set_actor_rigid_shape_properties", name)
        if not actor["dofs"]:
            return
        properties = gym.get_actor_dof_properties(env, handle)
        for row, joint in enumerate(gym.get_actor_dof_names(env, handle)):
            for key, value in actor["dofs"][joint].items():
                properties[key][row] = value
            # a position drive without stiffness is a damper: it gives the joint its own damping
            properties["driveMode"][row] = int(gymapi.DOF_MODE_POS)
        _did(gym.set_actor_dof_properties(env, handle, properties), "set_actor_dof_properties", name)
        _did(gym.enable_actor_dof_force_sensors(env, handle), "enable_actor_dof_force_sensors", name)

    # ---- buffers -----------------------------------------------------------------------------------------------

    def share(self, command: Spec) -> None:
        """Map the memory of the other process, and show it Isaac Gym's tensors there."""
        gym, sim = self.gym, self.sim
        if self.cuda:
            start = self.cuda.open(bytes.fromhex(command["handle"]))
        else:
            with open(command["path"], "r+b") as file:
                self.memory = mmap.mmap(file.fileno(), command["bytes"])
            start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.inputs: Dict[str, gymapi.Tensor] = {}
        for name, (place, shape) in command["places"].items():
            tensor = self.inputs[name] = gymapi.Tensor()
            tensor.device = self.index if self.cuda else -1
            tensor.dtype = gymapi.DTYPE_UINT32 if name.endswith("_ids") else gymapi.DTYPE_FLOAT32
            flat: Any = [shape[0] * shape[1], *shape[2:]]  # without an axis of environments; a list, as gymtorch has it
            tensor.shape = flat  # where the stubs say tuple
            tensor.data_address, tensor.own_data = start + 4 * place, False
        self.copies: List[Tuple[int, int, int]] = []  # to, from, bytes
        self._acquire("root", gym.acquire_actor_root_state_tensor(sim))
        self._acquire("body", gym.acquire_rigid_body_state_tensor(sim))
        if self.has_dofs:
            self._acquire("dof", gym.acquire_dof_state_tensor(sim))
            self._acquire("dof_force", gym.acquire_dof_force_tensor(sim))
        if self.has_sensors:
            self._acquire("sensor", gym.acquire_force_sensor_tensor(sim))
        self._copy_all()

    def _acquire(self, name: str, theirs: gymapi.Tensor) -> None:
        """Have ``_copy_all`` copy Isaac Gym's tensor, from where it is, for as long as the simulation lives."""
        _made(theirs, "acquisition of a tensor", name)
        ours, sizes = self.inputs.pop(name), [4, 4]
        for i, tensor in enumerate((ours, theirs)):
            for extent in tensor.shape:
                sizes[i] *= extent
        if sizes[0] != sizes[1] or theirs.device != ours.device:
            what = f"{sizes[1]} bytes on device {theirs.device}, not {sizes[0]} on {ours.device} (-1 is the host)"
            raise Failure(f"Isaac Gym's tensor for {name} has {what}")
        self.copies.append((ours.data_address, theirs.data_address, sizes[0]))

    def _copy_all(self) -> None:
        gym, sim = self.gym, self.sim
        _did(gym.refresh_actor_root_state_tensor(sim), "refresh_actor_root_state_tensor")
        _did(gym.refresh_rigid_body_state_tensor(sim), "refresh_rigid_body_state_tensor")
        if self.has_dofs:
            _did(gym.refresh_dof_state_tensor(sim), "refresh_dof_state_tensor")
            _did(gym.refresh_dof_force_tensor(sim), "refresh_dof_force_tensor")
        if self.has_sensors:
            _did(gym.refresh_force_sensor_tensor(sim), "refresh_force_sensor_tensor")
        if self.cuda:
            self.cuda("cuCtxSetCurrent", self.cuda.context)
        for copy in self.copies:
            (self.cuda.copy if self.cuda else ctypes.memmove)(*copy)
        if self.cuda:
            self.cuda("cuCtxSynchronize")  # the other process reads as soon as it has the answer

    def step(self, command: Spec) -> None:
        """One control step: every setter once, with the command's number of actors; simulate; copy."""
        gym, sim, seen = self.gym, self.sim, self.inputs
        roots, dofs = command["roots"], command["dofs"]
        if roots:
            done = gym.set_actor_root_state_tensor_indexed(sim, seen["next_root"], seen["root_ids"], roots)
            _did(done, "set_actor_root_state_tensor_indexed")
        if dofs:
            done = gym.set_dof_state_tensor_indexed(sim, seen["next_dof"], seen["dof_ids"], dofs)
            _did(done, "set_dof_state_tensor_indexed")
        if self.has_dofs:
            _did(gym.set_dof_position_target_tensor(sim, seen["target"]), "set_dof_position_target_tensor")
        if command["wrenches"]:
            done = gym.apply_rigid_body_force_tensors(sim, seen["force"], seen["torque"], gymapi.ENV_SPACE)
            _did(done, "apply_rigid_body_force_tensors")
        gym.simulate(sim)
        gym.fetch_results(sim, True)
        self._copy_all()


if __name__ == "__main__":
    main(sys.argv)
