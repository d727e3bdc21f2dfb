"""Isaac Gym Preview 4 in a process of its own: runs under the user's Python 3.8 and imports nothing of this package.

    python3.8 worker.py READ_FD WRITE_FD

Commands come as lines of JSON on the first descriptor and are answered on the second. Numbers are in float32 buffers
that both processes map: a file of shared memory, or GPU memory opened through CUDA IPC. Isaac Gym allows one simulation
per process and one call of each setter per step, so writes are collected here and submitted just before ``simulate``.

Isaac Gym has no forward kinematics without a step and cannot hold single environments. A held environment is put back
to its start after the step, and once more before the next; its root and joints are reported as they were put, its links
are one step old. See ``Engine`` for the contract.
"""

import ctypes
import json
import mmap
import os
import signal
import sys
import traceback
from typing import Any, Dict, List, Optional, Tuple

# isaacgym refuses to be imported after torch
from isaacgym import gymapi, gymtorch  # isort: skip
import numpy as np
import torch

FRAME = 13
INPUTS = ("root_mask", "root_value", "dof_mask", "dof_value", "target", "wrench", "hold", "mask")
OUTPUTS = ("root", "body", "dof", "dof_force", "sensor", "bad", "counts")
Spec = Dict[str, Any]


class Failure(Exception):
    """An error whose message is enough for the user."""


def main(argv: List[str]) -> None:
    """Carry out commands until ``close`` or until the other process has ended."""
    # they are sent to all processes of a run: the other one saves and ends, and needs physics until then
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    with os.fdopen(int(argv[1]), "r") as commands, os.fdopen(int(argv[2]), "w") as answers:
        worker: Optional[Worker] = None
        for line in commands:
            command = json.loads(line)
            answer: Spec = {}
            try:
                if command["do"] == "close":
                    break
                if command["do"] == "create":
                    worker = Worker(command)
                else:
                    getattr(worker, command["do"])(command)
            except Exception as error:  # whatever it is, the other process has to be told
                traceback.print_exc()
                answer = {"error": str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    # Isaac Gym is known to crash while the interpreter ends
    os._exit(0)


class _OpenedMemory:
    """GPU memory of another process, as ``__cuda_array_interface__``."""

    def __init__(self, handle: bytes, nbytes: int) -> None:
        class Handle(ctypes.Structure):
            _fields_ = [("reserved", ctypes.c_char * 64)]

        pointer = ctypes.c_uint64()
        driver = ctypes.CDLL("libcuda.so.1")
        code = driver.cuIpcOpenMemHandle_v2(ctypes.byref(pointer), Handle.from_buffer_copy(handle), 1)
        if code:
            raise Failure(f"CUDA error {code} while opening shared GPU memory; engine.share=host does without")
        shape, place = (nbytes // 4,), (pointer.value, False)
        self.__cuda_array_interface__ = {"shape": shape, "typestr": "<f4", "data": place, "version": 2}


def _map(spec: Spec, device: str) -> Dict[str, torch.Tensor]:
    """Name -> tensor, each a slice of the memory that the other process has allocated."""
    if spec["handle"]:
        torch.zeros(1, device=device)  # creates the CUDA context
        flat = torch.as_tensor(_OpenedMemory(bytes.fromhex(spec["handle"]), spec["bytes"]), device=device)
    else:
        with open(spec["path"], "r+b") as file:
            flat = torch.from_numpy(np.frombuffer(mmap.mmap(file.fileno(), spec["bytes"]), dtype=np.float32))
    out = {}
    for name, (start, shape) in spec["places"].items():
        out[name] = flat[start : start + int(np.prod(shape))].view(*shape)
    return out


def _rotated(frames: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Frames (E, L, 13) whose quaternions q become q ``rotation`` (L, 4), xyzw."""
    u, a, v, b = frames[..., 3:6], frames[..., 6:7], rotation[..., :3].expand(len(frames), -1, -1), rotation[..., 3:]
    vector = a * v + b * u + torch.cross(u, v, -1)
    scalar = a * b - (u * v).sum(-1, keepdim=True)
    return torch.cat([frames[..., :3], vector, scalar, frames[..., 7:]], -1)


class Worker:
    """One simulation, its tensors, and what is written before its next step.

    ``buffers`` are on the simulation's device. Where the shared memory is the host's and the device is not, they are
    copied from and to ``host``; otherwise they are the shared memory.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec, self.gym = spec, gymapi.acquire_gym()
        self.device, self.envs = spec["device"], spec["num_envs"]
        self.on_gpu = self.device != "cpu"
        if self.on_gpu:
            torch.cuda.set_device(self.device)
        self.sim = self._create_sim()
        self._create_world()
        self._check("prepare_sim", self.gym.prepare_sim(self.sim))
        self._acquire()
        self._share()
        self._start()

    # ---- the simulation ----------------------------------------------------------------------------------------

    def _check(self, what: str, result: Any) -> Any:
        if result is False or result is None:
            raise Failure(f"Isaac Gym's {what} failed; its own messages say why")
        return result

    def _create_sim(self) -> Any:
        spec, params = self.spec, gymapi.SimParams()
        params.dt, params.substeps = spec["dt"], spec["substeps"]
        params.up_axis = gymapi.UP_AXIS_Z
        params.gravity = gymapi.Vec3(*spec["gravity"])
        params.use_gpu_pipeline = params.physx.use_gpu = self.on_gpu
        params.physx.solver_type = 1  # temporal Gauss-Seidel
        params.physx.contact_collection = gymapi.CC_NEVER  # forces are read from sensors
        for name, value in spec["physx"].items():
            setattr(params.physx, name, value)
        # graphics device -1: no Vulkan, which is what crashes on servers; the other process draws the pictures
        index = torch.device(self.device).index or 0
        sim = self._check("create_sim", self.gym.create_sim(index, -1, gymapi.SIM_PHYSX, params))
        if spec["ground"]:
            plane = gymapi.PlaneParams()
            plane.normal = gymapi.Vec3(0.0, 0.0, 1.0)
            self.gym.add_ground(sim, plane)
        return sim

    def _load(self, actor: Spec) -> Any:
        gym, options = self.gym, gymapi.AssetOptions()
        options.fix_base_link, options.disable_gravity = actor["fixed"], not actor["gravity"]
        options.linear_damping, options.angular_damping = actor["damping"]
        options.density = actor["density"]
        options.collapse_fixed_joints = False
        options.thickness = 0.001
        options.use_physx_armature = True
        options.default_dof_drive_mode = int(gymapi.DOF_MODE_NONE)
        asset = gym.load_asset(self.sim, self.spec["folder"], actor["file"], options)
        self._check(f"load_asset({actor['file']})", asset)
        links = list(gym.get_asset_rigid_body_names(asset))
        missing = [name for name in actor["links"] if name not in links]
        missing += [name for name in actor["dofs"] if name not in gym.get_asset_dof_names(asset)]
        if missing:
            raise Failure(f"Isaac Gym's importer lost {', '.join(missing)} of {actor['name']}")
        if actor["tendons"]:
            tendons = gym.get_asset_tendon_properties(asset)
            for i in range(gym.get_asset_tendon_count(asset)):
                if gym.get_asset_tendon_name(asset, i) in actor["tendons"]:
                    for name, value in self.spec["tendons"].items():
                        setattr(tendons[i], name, value)
            gym.set_asset_tendon_properties(asset, tendons)
        for link in actor["sensors"]:
            gym.create_asset_force_sensor(asset, links.index(link), gymapi.Transform())
        return asset

    def _create_world(self) -> None:
        gym, spec = self.gym, self.spec
        assets = [self._load(actor) for actor in spec["actors"]]
        bodies = sum(gym.get_asset_rigid_body_count(asset) for asset in assets)
        shapes = sum(gym.get_asset_rigid_shape_count(asset) for asset in assets)
        side, per_row, order = spec["spacing"], max(1, int(self.envs**0.5)), []
        markers = [actor["name"] for actor in spec["actors"] if actor["marker"]]
        for e in range(self.envs):
            env = gym.create_env(self.sim, gymapi.Vec3(-side, -side, 0.0), gymapi.Vec3(side, side, side), per_row)
            gym.begin_aggregate(env, bodies, shapes, True)
            for actor, asset in zip(spec["actors"], assets):
                pose = gymapi.Transform()
                pose.p, pose.r = gymapi.Vec3(*actor["pose"][:3]), gymapi.Quat(*actor["pose"][3:])
                # each goal marker is in a collision group of its own, where there is nothing to touch
                group = e + self.envs * (1 + markers.index(actor["name"]) if actor["marker"] else 0)
                handle = gym.create_actor(env, asset, pose, actor["name"], group, actor["filter"], 0)
                self._set_properties(env, handle, actor)
                order.append(gym.get_actor_index(env, handle, gymapi.DOMAIN_SIM))
            gym.end_aggregate(env)
        if order != list(range(self.envs * len(assets))):
            raise Failure("Isaac Gym did not number the actors in the order of their creation")
        self._index(assets)

    def _set_properties(self, env: Any, handle: Any, actor: Spec) -> None:
        gym = self.gym
        shapes = gym.get_actor_rigid_shape_properties(env, handle)
        for shape in shapes:
            shape.friction = actor["friction"]
        gym.set_actor_rigid_shape_properties(env, handle, shapes)
        if not actor["dofs"]:
            return
        properties = gym.get_actor_dof_properties(env, handle)
        for row, name in enumerate(gym.get_actor_dof_names(env, handle)):
            for key, value in actor["dofs"][name].items():
                properties[key][row] = value
            # a position drive without stiffness is a damper: it gives the joint its own damping
            properties["driveMode"][row] = int(gymapi.DOF_MODE_POS)
        self._check("set_actor_dof_properties", gym.set_actor_dof_properties(env, handle, properties))
        gym.enable_actor_dof_force_sensors(env, handle)

    def _index(self, assets: List[Any]) -> None:
        """Where the scene's names are in Isaac Gym's tensors, which are ordered by actor."""
        gym, spec = self.gym, self.spec
        links = [(a["name"], n) for a, t in zip(spec["actors"], assets) for n in gym.get_asset_rigid_body_names(t)]
        joints = [(a["name"], n) for a, t in zip(spec["actors"], assets) for n in gym.get_asset_dof_names(t)]
        sensors = [(a["name"], n) for a in spec["actors"] for n in a["sensors"]]
        self.actors, self.bodies, self.dofs = len(assets), len(links), len(joints)
        if self.dofs != len(spec["dofs"]):
            raise Failure(f"Isaac Gym's importer found {self.dofs} joints, not the scene's {len(spec['dofs'])}")

        def index(names: List[Tuple[str, str]], wanted: List[List[str]]) -> torch.Tensor:
            return torch.tensor([names.index((a, n)) for a, n in wanted], dtype=torch.long, device=self.device)

        self.link_index = index(links, spec["links"])
        self.dof_index = index(joints, spec["dofs"])
        self.target_index = index(joints, [spec["dofs"][u] for u in spec["targets"]])
        self.wrench_index = index(links, spec["wrenches"])
        self.sensor_index = index(sensors, spec["sensors"])
        jointed = [bool(actor["dofs"]) for actor in spec["actors"]]
        self.jointed = torch.tensor(jointed, device=self.device)
        self.movable = torch.tensor([not actor["fixed"] for actor in spec["actors"]], device=self.device)
        count = self.envs * self.actors
        self.actor_ids = torch.arange(count, dtype=torch.int32, device=self.device).view(self.envs, self.actors)
        rotations = torch.tensor(spec["link_rotations"], device=self.device).view(-1, 4)
        self.link_rotations = None if bool((rotations[:, 3].abs() == 1.0).all()) else rotations

    # ---- tensors -----------------------------------------------------------------------------------------------

    def _acquire(self) -> None:
        gym, sim, e, wrap = self.gym, self.sim, self.envs, gymtorch.wrap_tensor
        self._refresh_all()  # before the first acquisition, or what is acquired is not a number
        self.root = wrap(gym.acquire_actor_root_state_tensor(sim)).view(e, self.actors, FRAME)
        self.body = wrap(gym.acquire_rigid_body_state_tensor(sim)).view(e, self.bodies, FRAME)
        self.dof, self.dof_force = torch.zeros(e, 0, 2, device=self.device), torch.zeros(e, 0, device=self.device)
        if self.dofs:
            self.dof = wrap(gym.acquire_dof_state_tensor(sim)).view(e, self.dofs, 2)
            self.dof_force = wrap(gym.acquire_dof_force_tensor(sim)).view(e, self.dofs)
        self.sensor = torch.zeros(e, 0, 6, device=self.device)
        if self.spec["sensors"]:
            self.sensor = wrap(gym.acquire_force_sensor_tensor(sim)).view(e, -1, 6)

    def _refresh_all(self) -> None:
        gym, sim = self.gym, self.sim
        gym.refresh_actor_root_state_tensor(sim)
        gym.refresh_rigid_body_state_tensor(sim)
        if self.dofs:
            gym.refresh_dof_state_tensor(sim)
            gym.refresh_dof_force_tensor(sim)
        if self.spec["sensors"]:
            gym.refresh_force_sensor_tensor(sim)

    def _share(self) -> None:
        shared = _map(self.spec["memory"], self.device)
        self.host: Optional[Dict[str, torch.Tensor]] = None
        self.buffers = shared
        if self.on_gpu and not self.spec["memory"]["handle"]:
            self.host = shared
            self.buffers = {name: value.to(self.device) for name, value in shared.items()}

    def _start(self) -> None:
        """Keep the scene as it was authored, to which broken environments are reset."""
        e, device = self.envs, self.device
        poses = torch.tensor([actor["pose"] + [0.0] * 6 for actor in self.spec["actors"]], device=device)
        self.root_start, self.dof_start = poses.expand(e, -1, -1).contiguous(), torch.zeros_like(self.dof)
        self.root_next, self.dof_next = self.root_start.clone(), self.dof_start.clone()
        self.target = torch.zeros(e, self.dofs, device=device)
        self.force, self.torque = (torch.zeros(e, self.bodies, 3, device=device) for _ in range(2))
        self._refresh_all()
        self._report_all()
        self.body_start = self.buffers["body"].clone()
        # prepare_sim may have moved actors: everything is written once more
        self.root_pending = self.movable.expand(e, -1).clone()
        self.dof_pending = torch.ones(e, dtype=torch.bool, device=device)
        self._report_pending(torch.ones(e, dtype=torch.bool, device=device))
        self._push()

    # ---- commands ----------------------------------------------------------------------------------------------

    def step(self, command: Spec) -> None:
        """One control step; environments whose ``hold`` is set are placed and not stepped."""
        self._pull()
        self._stage(command)
        hold = self.buffers["hold"] > 0.5
        root, dof = self._next_state()
        self._submit()
        self.gym.simulate(self.sim)
        self.gym.fetch_results(self.sim, True)
        self._refresh_all()
        self._report_all()
        self._reset_broken(hold)
        self._report(hold, root, dof)
        self._place(hold, root, dof)
        self._push()

    def refresh(self, command: Spec) -> None:
        """Take the staged writes and report them where ``mask`` is set, without a step."""
        self._pull()
        self._stage(command)
        self._report_pending(self.buffers["mask"] > 0.5)
        self._push()

    def _stage(self, command: Spec) -> None:
        """Add what the other process has written to what is pending."""
        seen = self.buffers
        if command["roots"]:
            mask = seen["root_mask"] > 0.5
            self.root_next = torch.where(mask[..., None], seen["root_value"], self.root_next)
            self.root_pending |= mask & self.movable
        if command["dofs"]:
            mask = seen["dof_mask"] > 0.5
            self.dof_next = torch.where(mask[:, None, None], self._in_gym_order(seen["dof_value"]), self.dof_next)
            self.dof_pending |= mask
        if command["targets"]:
            self.target[:, self.target_index] = seen["target"]
        self.force.zero_()
        self.torque.zero_()
        if command["wrenches"]:
            self.force[:, self.wrench_index] = seen["wrench"][..., :3]
            self.torque[:, self.wrench_index] = seen["wrench"][..., 3:]

    def _next_state(self) -> Tuple[torch.Tensor, torch.Tensor]:
        """Root and joint states at the start of the next step: what is pending, else what was last reported."""
        root = torch.where(self.root_pending[..., None], self.root_next, self.buffers["root"])
        last = self._in_gym_order(self.buffers["dof"])
        return root, torch.where(self.dof_pending[:, None, None], self.dof_next, last)

    def _place(self, mask: torch.Tensor, root: torch.Tensor, dof: torch.Tensor) -> None:
        """Start the next step from ``root`` and ``dof`` where ``mask`` (E,)."""
        here = mask[:, None, None]
        self.root_next, self.dof_next = torch.where(here, root, self.root_next), torch.where(here, dof, self.dof_next)
        self.root_pending |= mask[:, None] & self.movable
        self.dof_pending |= mask

    def _submit(self) -> None:
        """Write everything pending to Isaac Gym, each setter once."""
        unwrap = gymtorch.unwrap_tensor
        root_ids = self.actor_ids[self.root_pending]
        dof_ids = self.actor_ids[self.dof_pending[:, None] & self.jointed]
        # Isaac Gym gets pointers: what they point to must exist until the step is done
        root, dof = self.root_next.contiguous(), self.dof_next.contiguous()
        self._alive = root, dof, root_ids, dof_ids
        if len(root_ids):
            self._set("set_actor_root_state_tensor_indexed", unwrap(root), unwrap(root_ids), len(root_ids))
        if len(dof_ids):
            self._set("set_dof_state_tensor_indexed", unwrap(dof), unwrap(dof_ids), len(dof_ids))
        if self.dofs:
            self._set("set_dof_position_target_tensor", unwrap(self.target))
        if len(self.wrench_index):
            wrench = unwrap(self.force), unwrap(self.torque)
            self._set("apply_rigid_body_force_tensors", *wrench, gymapi.ENV_SPACE)
        self.root_pending.zero_()
        self.dof_pending.zero_()

    def _set(self, name: str, *values: Any) -> None:
        self._check(name, getattr(self.gym, name)(self.sim, *values))

    def _report_all(self) -> None:
        """Report Isaac Gym's tensors in the scene's order; positions are local and velocities at the COM in both."""
        out = self.buffers
        body = self.body[:, self.link_index]
        out["root"].copy_(torch.where(self.movable[:, None], self.root, self.root_start))
        out["body"].copy_(body if self.link_rotations is None else _rotated(body, self.link_rotations))
        out["dof"].copy_(self.dof[:, self.dof_index])
        out["dof_force"].copy_(self.dof_force[:, self.dof_index])
        out["sensor"].copy_(self.sensor[:, self.sensor_index])

    def _report(self, mask: torch.Tensor, root: torch.Tensor, dof: torch.Tensor) -> None:
        """Report roots and joints where ``mask`` (E,), without forces."""
        out, here = self.buffers, mask[:, None, None]
        out["root"].copy_(torch.where(here, root, out["root"]))
        out["dof"].copy_(torch.where(here, dof[:, self.dof_index], out["dof"]))
        out["dof_force"].masked_fill_(mask[:, None], 0.0)
        out["sensor"].masked_fill_(here, 0.0)

    def _report_pending(self, mask: torch.Tensor) -> None:
        """Report what is pending where ``mask`` (E,), with links as they were authored and without forces."""
        self._report(mask, *self._next_state())
        out = self.buffers
        out["body"].copy_(torch.where(mask[:, None, None], self.body_start, out["body"]))

    def _reset_broken(self, hold: torch.Tensor) -> None:
        """Flag environments that are not finite, or too fast; they start the next step as they were authored."""
        out = self.buffers
        fine = torch.ones_like(hold)
        for name in ("root", "body", "dof", "dof_force", "sensor"):
            fine &= torch.isfinite(out[name].flatten(1)).all(1)
        speed = torch.cat([out["root"][..., 7:].flatten(1), out["dof"][..., 1]], 1).abs().amax(1)
        bad = ~(fine & (hold | (speed <= self.spec["max_speed"])))
        out["bad"].copy_(bad)
        out["counts"].copy_(torch.stack([bad.sum(), bad.all()]))
        self._place(bad, self.root_start, self.dof_start)
        # selected, not multiplied by zero: NaN times zero is NaN
        self._report_pending(bad)

    # ---- buffers ---------------------------------------------------------------------------------------------------

    def _in_gym_order(self, dof: torch.Tensor) -> torch.Tensor:
        """The scene's order of dofs (E, dofs, 2) -> Isaac Gym's."""
        out = torch.empty_like(dof)
        out[:, self.dof_index] = dof
        return out

    def _pull(self) -> None:
        if self.host is not None:
            for name in INPUTS:
                self.buffers[name].copy_(self.host[name])

    def _push(self) -> None:
        if self.host is not None:
            for name in OUTPUTS:
                self.host[name].copy_(self.buffers[name])
        if self.on_gpu:
            torch.cuda.synchronize()  # the other process reads as soon as it has the answer


if __name__ == "__main__":
    main(sys.argv)
