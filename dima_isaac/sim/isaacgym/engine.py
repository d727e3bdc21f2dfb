"""Isaac Gym Preview 4, the user's own, behind the engine contract: PhysX on thousands of environments on a GPU.

Isaac Gym exists for Python 3.6 to 3.8 only, so it runs in a process of its own (``worker.py``), and its state
is seen here as tensors of memory that both processes map. A crash of the simulator cannot take the learner with it,
and several simulations live side by side.

Nothing here has met a real Isaac Gym yet: its documented behaviour is what ``tests/sim/fake_isaacgym`` enforces.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from dima_isaac.errors import SimulationError, UsageError, WorkerError
from dima_isaac.sim.compiled import Compiled, compile_scene
from dima_isaac.sim.config import IsaacGymConfig, PhysicsConfig, Share
from dima_isaac.sim.engine import Capabilities, check_shapes
from dima_isaac.sim.isaacgym.assets import GymAsset, gym_asset
from dima_isaac.sim.render import Drawn
from dima_isaac.sim.rotations import rotate
from dima_isaac.sim.scene import Actor, Box, Ellipsoid, Mjcf, Scene
from dima_isaac.sim.variation import varies

VARIABLE = "DIMA_ISAACGYM_PYTHON"
_WORKER = Path(__file__).with_name("worker.py")
_FRAME = 13
_SELF_COLLISION, _ASSETS_OWN = 0, -1  # create_actor's filter: all of its shapes touch, or those of its contact pairs
_UNLIMITED = 1e9  # N m
_HOPELESS = 10  # control steps with every environment broken before the engine gives up
_PHYSX = (
    *("velocity_iterations", "position_iterations", "contact_offset", "rest_offset", "bounce_threshold_velocity"),
    *("max_depenetration_velocity", "buffer_size_multiplier", "max_gpu_contact_pairs", "num_threads"),
)
_PHYSX_NAMES = {
    "velocity_iterations": "num_velocity_iterations",
    "position_iterations": "num_position_iterations",
    "buffer_size_multiplier": "default_buffer_size_multiplier",
}


class IsaacGymEngine(Drawn):
    """The Isaac Gym engine; see ``Engine`` for the contract.

    After a reset joints and roots are current; links follow at the next step (``fresh_after_reset``). One control step
    waits for the device once, because another process has to be told.
    """

    def __init__(self, scene: Scene, num_envs: int, cfg: IsaacGymConfig, device: torch.device) -> None:
        """Start the worker and build ``scene`` there.

        Raises:
            UsageError: no interpreter, or a scene with what Isaac Gym does not have.
            WorkerError: Isaac Gym did not start; its own words are in the message.
        """
        if scene.world:
            raise UsageError(f"engine=isaacgym has no robots of {Path(scene.world).name}; use engine=mujoco.")
        if varies(scene):
            raise UsageError("engine=isaacgym does not randomise yet; use engine=mujoco or mujoco_warp.")
        self.scene, self.num_envs, self.cfg = scene, num_envs, cfg
        self._sim_device = device
        self.device = torch.device("cpu") if cfg.share is Share.host else device
        self.control_dt, self.substeps = scene.control_dt, cfg.substeps
        self.capabilities = Capabilities(
            deterministic=False,
            fresh_after_reset=False,
            force_sensor="PhysX's force and torque on the link, of dynamics and constraints, link axes",
            dof_force="PhysX's joint force of drives and constraints",
            on_host=self.device.type == "cpu",
        )
        compiled = self._compiled = compile_scene(scene, PhysicsConfig(), sensors=False)
        self.actor_names, self.link_names = compiled.actor_names, tuple(scene.links)
        self.dof_names = compiled.dof_names
        self.actuator_dofs = torch.from_numpy(compiled.actuator_dofs).to(self.device)
        self.dof_lower = torch.from_numpy(compiled.dof_lower).float().to(self.device)
        self.dof_upper = torch.from_numpy(compiled.dof_upper).float().to(self.device)
        self._wrenches = [i for i, actor in enumerate(scene.actors) if actor.wrench]
        program = interpreter(cfg)
        self._arena = _Arena(self._layout(), self.device)
        self._bind()
        self._worker = _Worker(program)
        try:
            self._worker.ask(self._description(), cfg.start_patience)
        except BaseException:
            self.close()
            raise
        finally:  # both processes have opened what they need, and whoever is killed leaves nothing behind
            self._arena.forget_name()
            self._worker.forget_folder()

    # ---- views -------------------------------------------------------------------------------------------------

    def _layout(self) -> dict[str, tuple[int, ...]]:
        """What is shared, and its shape."""
        e, a, u = self.num_envs, len(self.actor_names), len(self.actuator_dofs)
        dofs, links, sensors = len(self.dof_names), len(self.link_names), len(self.scene.force_sensors)
        return {
            **{"root_mask": (e, a), "root_value": (e, a, _FRAME), "dof_mask": (e,), "dof_value": (e, dofs, 2)},
            **{"target": (e, u), "wrench": (e, len(self._wrenches), 6), "hold": (e,), "mask": (e,)},
            **{"root": (e, a, _FRAME), "body": (e, links, _FRAME), "dof": (e, dofs, 2), "dof_force": (e, dofs)},
            **{"sensor": (e, sensors, 6), "bad": (e,), "counts": (2,)},
        }

    def _bind(self) -> None:
        shared = self._arena.tensors
        self.root_state, self.body_state = shared["root"], shared["body"]
        self.dof_pos, self.dof_vel = shared["dof"].unbind(-1)
        self.dof_force, self.force_sensor = shared["dof_force"], shared["sensor"]
        self.bad = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self._nonfinite, self._broken_runs = (torch.zeros((), dtype=torch.int64, device=self.device) for _ in range(2))
        self._staged = dict.fromkeys(("roots", "dofs", "targets", "wrenches"), False)

    # ---- the scene in Isaac Gym's words ------------------------------------------------------------------------

    def _description(self) -> dict[str, Any]:
        scene, cfg = self.scene, self.cfg
        assets = {actor.name: gym_asset(actor) for actor in scene.actors}
        places = {name: assets[name].write(self._worker.folder, name) for name in assets}

        def part(link: str) -> list[str]:
            actor, _, rest = link.partition("/")
            return [actor, rest or assets[actor].links[0]]

        links = [part(link) for link in self.link_names]
        turns = [assets[a].root_quat if name == assets[a].links[0] else (0.0, 0.0, 0.0, 1.0) for a, name in links]
        return {
            "do": "create",
            "device": str(self._sim_device),
            "num_envs": self.num_envs,
            "dt": scene.control_dt,
            "substeps": cfg.substeps,
            "gravity": list(scene.gravity),
            "ground": scene.ground,
            "spacing": cfg.spacing,
            "max_speed": cfg.max_speed,
            "tendon_limit_stiffness": cfg.tendon_limit_stiffness,
            "tendon_damping": cfg.tendon_damping,
            "physx": {_PHYSX_NAMES.get(key, key): getattr(cfg, key) for key in _PHYSX},
            "folder": str(self._worker.folder),
            "actors": [self._actor(actor, assets[actor.name], places[actor.name]) for actor in scene.actors],
            "links": links,
            "turns": turns,
            "dofs": [part(name) for name in self.dof_names],
            "targets": self._compiled.actuator_dofs.tolist(),
            "wrenches": [part(f"{scene.actors[i].name}/{scene.actors[i].wrench}") for i in self._wrenches],
            "sensors": [part(link) for link in scene.force_sensors],
            "arena": self._arena.description,
        }

    def _actor(self, actor: Actor, asset: GymAsset, file: str) -> dict[str, Any]:
        # the hand's asset lists the pairs of its own geoms that touch; everything else may touch all of itself
        own = bool(asset.tendons) and not actor.self_collision
        return {
            "name": actor.name,
            "file": file,
            "fixed": actor.fixed,
            "marker": actor.marker,
            "gravity": actor.gravity and not actor.marker,
            "friction": actor.friction,
            "damping": list(actor.damping),
            "density": actor.asset.density if isinstance(actor.asset, Box | Ellipsoid) else 1000.0,
            "filter": _ASSETS_OWN if own else _SELF_COLLISION,
            "pose": [*actor.pos, *actor.quat],
            "links": list(asset.links),
            "dofs": _joints(self._compiled, actor.name),
            "tendons": list(asset.tendons),
            "sensors": [link.split("/")[1] for link in self.scene.force_sensors if link.split("/")[0] == actor.name]
            if isinstance(actor.asset, Mjcf)
            else [asset.links[0] for link in self.scene.force_sensors if link == actor.name],
        }

    # ---- staged writes -----------------------------------------------------------------------------------------

    def set_dof_target(self, target: Tensor) -> None:
        """Position targets (E, U) for the actuated dofs, held until the next call."""
        own = self._arena.tensors["target"]
        if target.shape != own.shape:
            raise ValueError(f"targets must be {tuple(own.shape)}, not {tuple(target.shape)}")
        own.copy_(target)
        self._staged["targets"] = True

    def apply_force(self, actor: int, force: Tensor, torque: Tensor) -> None:
        """Force and torque (E, 3) in world axes at the centre of mass of the actor's wrench link, for one step."""
        if actor not in self._wrenches:
            raise ValueError(f"actor '{self.actor_names[actor]}' has no wrench link")
        own = self._arena.tensors["wrench"]
        if not self._staged["wrenches"]:
            own.zero_()
        own[:, self._wrenches.index(actor)] = torch.cat([force, torque], 1)
        self._staged["wrenches"] = True

    def set_root_state(self, mask: Tensor, actor: int, state: Tensor) -> None:
        """Write (E, 13) to one actor's root where ``mask`` (E,); markers use the pose only.

        Raises:
            ValueError: a fixed actor.
        """
        if self.scene.actors[actor].fixed:
            raise ValueError(f"actor '{self.actor_names[actor]}' is fixed and cannot be moved")
        masks, values = self._arena.tensors["root_mask"][:, actor], self._arena.tensors["root_value"][:, actor]
        size = 7 if self.scene.actors[actor].marker else _FRAME
        values[:, :size] = torch.where(mask[:, None], state[:, :size], values[:, :size])
        masks.masked_fill_(mask, 1.0)
        self._staged["roots"] = True

    def set_dof_state(self, mask: Tensor, pos: Tensor, vel: Tensor) -> None:
        """Write all dofs (E, dofs) where ``mask`` (E,)."""
        values = self._arena.tensors["dof_value"]
        values.copy_(torch.where(mask[:, None, None], torch.stack([pos, vel], -1), values))
        self._arena.tensors["dof_mask"].masked_fill_(mask, 1.0)
        self._staged["dofs"] = True

    def field(self, name: str) -> Tensor:
        """Raises KeyError: PhysX has no raw fields."""
        raise KeyError(f"engine=isaacgym has no raw field '{name}'; engine=mujoco has")

    def set_field(self, mask: Tensor, name: str, value: Tensor) -> None:
        """Raises KeyError: PhysX has no raw fields."""
        self.field(name)

    def constant(self, name: str) -> Tensor:
        """Raises KeyError: PhysX has no raw fields."""
        return self.field(name)

    @property
    def body_names(self) -> tuple[str, ...]:
        """The registered links: there is no other list."""
        return self.link_names

    # ---- time --------------------------------------------------------------------------------------------------

    def step(self, hold: Tensor) -> None:
        """Flush, advance one control step except where ``hold`` (E,), and bring every view up to date.

        Held environments take the staged writes; their links are shown one step later than their joints.

        Raises:
            WorkerError: Isaac Gym died, failed, or did not answer in time.
        """
        shared = self._arena.tensors
        shared["hold"].copy_(hold)
        self._tell("step")
        torch.gt(shared["bad"], 0.5, out=self.bad)
        self._nonfinite += shared["counts"][0].to(torch.int64)
        self._broken_runs.copy_(torch.where(shared["counts"][1] > 0.5, self._broken_runs + 1, 0))

    def refresh(self, mask: Tensor) -> None:
        """Flush and bring roots and joints of ``mask`` (E,) up to date; its links are shown as they were authored."""
        self._arena.tensors["mask"].copy_(mask)
        self._tell("refresh")

    def _tell(self, what: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # the other process has no part in our stream
        self._worker.ask({"do": what, **self._staged}, self.cfg.patience)
        if self._staged["roots"]:
            self._arena.tensors["root_mask"].zero_()
        if self._staged["dofs"]:
            self._arena.tensors["dof_mask"].zero_()
        waiting = what == "refresh" and self._staged["wrenches"]  # forces act in a step, the next one
        self._staged = {**dict.fromkeys(self._staged, False), "wrenches": waiting}

    # ---- the rest ----------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Tensor]:
        """Counters since construction: environments found ``nonfinite``; complaints about full contact buffers in
        PhysX's own output (``contact_overflow``: raise engine.max_gpu_contact_pairs or engine.buffer_size_multiplier).

        Reads one number from the device.

        Raises:
            SimulationError: every environment broke many steps in a row.
        """
        if int(self._broken_runs) >= _HOPELESS:
            raise SimulationError(
                f"all {self.num_envs} environments were non-finite for {_HOPELESS} steps in a row: "
                "are the actions finite?"
            )
        overflow = torch.tensor(self._worker.complaints(), device=self.device)
        return {"nonfinite": self._nonfinite.clone(), "contact_overflow": overflow}

    def _saved(self) -> dict[str, Tensor]:
        shared = self._arena.tensors
        names = ("root", "body", "dof", "dof_force", "sensor", "target")
        counters = {"bad": self.bad, "nonfinite": self._nonfinite, "broken_runs": self._broken_runs}
        return {**{name: shared[name] for name in names}, **counters}

    def state_dict(self) -> dict[str, Tensor]:
        """Roots, joints, targets, views and counters; PhysX keeps its contacts and warm starts to itself."""
        return {name: value.clone() for name, value in self._saved().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict``; raises ValueError when the shapes are another scene's."""
        saved = self._saved()
        check_shapes(state, saved)
        state = {name: value.to(self.device) for name, value in state.items()}
        everywhere = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        for index, actor in enumerate(self.scene.actors):
            if not actor.fixed:
                self.set_root_state(everywhere, index, state["root"][:, index])
        self.set_dof_state(everywhere, *state["dof"].unbind(-1))
        self.set_dof_target(state["target"])
        self.refresh(everywhere)
        for name, own in saved.items():
            own.copy_(state[name])

    def copy_env(self, env: int, data: mujoco.MjData) -> None:
        """Write one environment's joints and markers into ``data`` of the render model."""
        compiled = self._compiled
        roots, joints = self.root_state[env].cpu(), self.dof_pos[env].cpu().numpy()
        data.qpos[compiled.dof_qpos] = joints
        for index, root in enumerate(roots):
            offset = torch.from_numpy(compiled.root_offset[index]).float()
            pos = (root[:3] + rotate(root[3:7], offset)).numpy()
            wxyz = root[[6, 3, 4, 5]].numpy()
            if (start := compiled.root_qpos[index]) >= 0:
                data.qpos[start : start + 3], data.qpos[start + 3 : start + 7] = pos, wxyz
            elif (mark := compiled.root_mocap[index]) >= 0:
                data.mocap_pos[mark], data.mocap_quat[mark] = pos, wxyz

    def close(self) -> None:
        """End the worker and release the renderer; shared memory goes with its last user."""
        super().close()
        self._worker.close()


def interpreter(cfg: IsaacGymConfig) -> str:
    """The Python that can import isaacgym.

    Raises:
        UsageError: none is named, or it is not there.
    """
    named = cfg.python or os.environ.get(VARIABLE, "")
    if not named:
        raise UsageError(f"engine=isaacgym needs {VARIABLE}=/path/to/python3.8, one that can import isaacgym.")
    found = shutil.which(os.path.expanduser(named))
    if found is None:
        where = "engine.python" if cfg.python else VARIABLE
        raise UsageError(f"{where}={named} is not a program.")
    return found


def _joints(compiled: Compiled, actor: str) -> dict[str, dict[str, float]]:
    """Isaac Gym's properties of an actor's joints: limits, and the drive that MuJoCo's actuator describes."""
    model = compiled.model
    drives = {int(dof): u for u, dof in enumerate(compiled.actuator_dofs)}
    out = {}
    for index, name in enumerate(compiled.dof_names):
        owner, _, joint = name.partition("/")
        if owner != actor:
            continue
        dof, drive = int(compiled.dof_qvel[index]), drives.get(index)
        limited = bool(np.isfinite(compiled.dof_lower[index]))
        bounded = drive is not None and bool(model.actuator_forcelimited[drive])
        out[joint] = {
            "hasLimits": limited,
            "lower": float(compiled.dof_lower[index]) if limited else -_UNLIMITED,
            "upper": float(compiled.dof_upper[index]) if limited else _UNLIMITED,
            "stiffness": 0.0 if drive is None else float(model.actuator_gainprm[drive, 0]),
            "damping": float(model.dof_damping[dof] - compiled.drag[dof]),
            "effort": float(model.actuator_forcerange[drive, 1]) if bounded else _UNLIMITED,
            "friction": float(model.dof_frictionloss[dof]),
            "armature": float(model.dof_armature[dof]),
        }
    return out


class _Arena:
    """Memory that the worker maps too: named float32 tensors, one after the other."""

    def __init__(self, layout: dict[str, tuple[int, ...]], device: torch.device) -> None:
        fields, total = {}, 0
        for name, shape in layout.items():
            fields[name] = (total, shape)
            total += -(-int(np.prod(shape)) // 4) * 4  # at multiples of 16 bytes
        nbytes = 4 * max(total, 4)
        self._pointer: ctypes.c_uint64 | None = None
        self._path, handle = "", ""
        if device.type == "cuda":
            flat, handle = self._on_device(nbytes, device)
        else:
            folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
            file, self._path = tempfile.mkstemp(prefix="dima_isaacgym_", dir=folder)
            os.close(file)
            flat = torch.from_numpy(np.memmap(self._path, dtype=np.float32, mode="w+", shape=(nbytes // 4,)))
        self.tensors = {
            name: flat[start : start + int(np.prod(shape))].view(*shape) for name, (start, shape) in fields.items()
        }
        self.description = {"path": self._path, "handle": handle, "bytes": nbytes, "fields": fields}

    def _on_device(self, nbytes: int, device: torch.device) -> tuple[Tensor, str]:
        """Device memory of its own: torch's allocator would hand out a part of something larger.

        Raises:
            UsageError: memory that cannot be shared here.
        """

        class Handle(ctypes.Structure):
            _fields_ = [("reserved", ctypes.c_char * 64)]

        torch.zeros(1, device=device)  # makes the context in which memory is taken
        driver, pointer, handle = ctypes.CDLL("libcuda.so.1"), ctypes.c_uint64(), Handle()
        with torch.cuda.device(device):
            code = driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(nbytes))
            code = code or driver.cuIpcGetMemHandle(ctypes.byref(handle), pointer)
        if code:
            raise UsageError(f"GPU memory cannot be shared here (CUDA error {code}); engine.share=host does without.")
        self._pointer = pointer

        class Owner:
            __cuda_array_interface__ = {  # noqa: RUF012
                **{"shape": (nbytes // 4,), "typestr": "<f4", "version": 2},
                "data": (pointer.value, False),
            }

        flat = torch.as_tensor(Owner(), device=device)
        return flat.zero_(), bytes(handle).hex()

    def forget_name(self) -> None:
        """Take the file's name away. Device memory stays until the process ends: anybody may hold views of it."""
        if self._path:
            os.unlink(self._path)
            self._path = ""


class _Worker:
    """The process, its two pipes, its folder and what it prints."""

    def __init__(self, python: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dima_isaacgym_"))
        self._log = (self.folder / "isaacgym.log").open("w+b")
        self._read_to, self._complaints, self._rest = 0, 0, b""
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        try:
            self._process = subprocess.Popen(
                # -u: C would keep PhysX's complaints until 4 kB have come together, and lose them in a crash
                [python, "-u", str(_WORKER), str(commands), str(answers)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=_environment(python),
                pass_fds=(commands, answers),
            )
        except OSError as error:
            self.forget_folder()
            raise UsageError(f"{python} cannot be started: {error.strerror}.") from error
        finally:
            os.close(commands)
            os.close(answers)

    def ask(self, command: dict[str, Any], patience: float) -> dict[str, Any]:
        """The worker's answer to ``command``.

        Raises:
            WorkerError: it refused, died or did not answer within ``patience`` seconds.
        """
        try:
            _write(self._commands, json.dumps(command).encode() + b"\n")
        except BrokenPipeError:
            raise WorkerError(self._died()) from None
        deadline = time.monotonic() + patience
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0:
                raise WorkerError(f"Isaac Gym did not answer within {patience:g} s.{self._last_words()}")
            if select.select([self._answers], [], [], left)[0]:
                piece = os.read(self._answers, 1 << 16)
                if not piece:
                    raise WorkerError(self._died())
                self._rest += piece
        line, self._rest = self._rest.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"Isaac Gym could not {command['do']}: {answer['error']}.{self._last_words()}")
        return answer

    def _died(self) -> str:
        code = self._process.wait()
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"Isaac Gym's process {how}.{self._last_words()}"

    def _last_words(self) -> str:
        lines = [line for line in self._printed(0).decode(errors="replace").splitlines() if line.strip()]
        return f" Its last words: {' | '.join(lines[-3:])[-400:]}" if lines else ""

    def complaints(self) -> int:
        """Lines about contacts for which there was no room, in everything that PhysX has printed."""
        new = self._printed(self._read_to)
        whole = new.rfind(b"\n") + 1
        self._read_to += whole
        lines = new[:whole].decode(errors="replace").lower().splitlines()
        self._complaints += sum("overflow" in line or "pairscapacity" in line for line in lines)
        return self._complaints

    def _printed(self, start: int) -> bytes:
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size - start, start)  # the worker writes where the file's own position is

    def forget_folder(self) -> None:
        """Remove the assets and the log's name."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """End the process, kindly first."""
        if self._process.poll() is None:
            try:
                _write(self._commands, b'{"do": "close"}\n')
                self._process.wait(5.0)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
        for end in (self._commands, self._answers):
            if end >= 0:
                os.close(end)
        self._commands = self._answers = -1
        self._log.close()


def _write(end: int, data: bytes) -> None:
    while data:
        data = data[os.write(end, data) :]


def _environment(python: str) -> dict[str, str]:
    """This process's variables without its own Python's, and the other interpreter's libraries first."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    library = Path(python).resolve().parent.parent / "lib"  # where libpython3.8.so.1.0 is
    kept["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, (str(library), os.environ.get("LD_LIBRARY_PATH", ""))))
    return kept
