"""One simulation: an engine of ours, and Isaac Gym's flat tensors, which only ``refresh`` writes.

Setters are staged and reach the engine with the next ``step``, all environments at once. Until then a refresh of roots
or joints shows what was staged, and links are those of the last step: as in Isaac Gym, which has no kinematics without
a step.
"""

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dima_isaac.errors import UsageError
from dima_isaac.gym.rules import warn_once
from dima_isaac.gym.structs import CoordinateSpace, DofDriveMode, SimParams
from dima_isaac.gym.world import World
from dima_isaac.sim.compiled import compile_scene
from dima_isaac.sim.config import MujocoConfig, MujocoWarpConfig
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.rotations import rotate, rotate_inverse
from dima_isaac.sim.scene import Scene

_FINEST = 240.0  # physics steps per second that every program gets at least; two hands need them


@dataclass
class Settings:
    """What ``python -m dima_isaac.gym`` was told before the script's name."""

    engine: str = "auto"  # auto: mujoco_warp for a program that asks for the GPU pipeline, else mujoco
    substeps: int = 0  # physics steps per simulate; 0: the program's, or 1/240 s if that is less
    threads: int = 0  # of the CPU engine; 0 takes every core


SETTINGS = Settings()


class Simulation:
    """The tensors are float32 on ``device``; E environments of A actors, D joints, L links and S force sensors.

    ``root`` (E A, 13), ``dof`` (E D, 2), ``body`` (E L, 13), ``sensor`` (E S, 6), ``dof_force`` (E D,).
    """

    engine: Engine
    root: Tensor
    dof: Tensor
    body: Tensor
    sensor: Tensor
    dof_force: Tensor

    def __init__(self, params: SimParams, device: torch.device) -> None:
        self.world, self.params, self.device = World(params), params, device
        self.frames = 0
        self.prepared = False
        self.fetched = True  # the program has waited for the last step, which was over already
        self._refreshed: set[str] = set()
        self._acquired: set[str] = set()
        self._setters: Counter[str] = Counter()

    # ---- construction ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Build the engine; the tensors show the actors where they were created.

        Raises:
            UsageError: environments that differ in their actors, or an asset that MuJoCo cannot compile.
        """
        if self.prepared:
            warn_once("prepare_sim is called once, after all environments were created; later calls do nothing")
            return
        scene, envs = self.world.scene(), len(self.world.envs)
        self.engine = self._engine(scene, envs)
        self._index(scene)
        self._bind_drives()
        self._allocate(scene, envs)
        self.prepared = True
        for name in ("root", "dof", "body", "sensor", "dof_force"):
            getattr(self, f"_refresh_{name}")()

    def _index(self, scene: Scene) -> None:
        """Where the program's joints, links and sensors are in the engine."""
        placed, at = self.world.envs[0].actors, self.engine.device
        self._own = [len(actor.asset.dofs) for actor in placed]
        self._dof_actor = torch.repeat_interleave(torch.arange(len(placed)), torch.tensor(self._own)).to(at)
        self._bodies = torch.tensor([self.engine.body_names.index(link) for link in scene.links], device=at)
        self._columns = torch.from_numpy(self._compiled.dof_qvel).to(at)
        share = torch.from_numpy(self._compiled.wrench_share).float()
        per_link = torch.tensor([len(p.asset.links) for p in placed])
        self._share = torch.repeat_interleave(share, per_link, 0).to(at)  # (L, 2); see sim.compiled
        poses = [list(pose) for p in placed for _, pose in p.asset.sensors]
        self._sensor_pose = torch.tensor(poses, device=at).reshape(-1, 7)

    def _allocate(self, scene: Scene, envs: int) -> None:
        """What is staged, and the tensors; free actors and markers are put where they were created."""
        at = self.engine.device
        actors, dofs = len(scene.actors), len(self._dof_actor)
        links, sensors = len(self._bodies), len(self._sensor_pose)
        everywhere = torch.ones(envs, dtype=torch.bool, device=at)
        self._nowhere = ~everywhere
        start = torch.tensor([actor.pose for env in self.world.envs for actor in env.actors], device=at)
        self._root = torch.cat([start, torch.zeros(len(start), 6, device=at)], 1).view(envs, actors, 13)
        self._spawn = self._root.clone()
        self._movable = [not actor.fixed for actor in scene.actors]
        for actor in (k for k, movable in enumerate(self._movable) if movable):
            self.engine.set_root_state(everywhere, actor, self._root[:, actor])
        self.engine.refresh(everywhere)
        self._root_mask = torch.zeros(envs, actors, dtype=torch.bool, device=at)
        self._dof = torch.zeros(envs, dofs, 2, device=at)
        self._dof_mask = torch.zeros(envs, dofs, dtype=torch.bool, device=at)
        self._wrench = torch.zeros(envs, len(self.engine.body_names), 6, device=at)
        self._effort = torch.zeros(envs, self._compiled.model.nv, device=at)
        self._acting = {"xfrc_applied": False, "qfrc_applied": False}  # in the last step
        self._asked = dict(self._acting)  # for the next one
        self.root, self.dof = (torch.zeros(envs * n, w, device=self.device) for n, w in ((actors, 13), (dofs, 2)))
        self.body, self.sensor = (torch.zeros(envs * n, w, device=self.device) for n, w in ((links, 13), (sensors, 6)))
        self.dof_force = torch.zeros(envs * dofs, device=self.device)

    def _engine(self, scene: Scene, envs: int) -> Engine:
        on_cpu = SETTINGS.engine == "mujoco" or (SETTINGS.engine == "auto" and self.device.type == "cpu")
        least = max(int(self.params.substeps), math.ceil(float(self.params.dt) * _FINEST - 1e-6))
        substeps = SETTINGS.substeps or least
        cfg: Any = MujocoConfig(substeps, threads=SETTINGS.threads) if on_cpu else MujocoWarpConfig(substeps)
        self._compiled = compile_scene(scene, cfg)
        scene = replace(scene, per_env=self.world.differences(scene, self._compiled))
        if on_cpu:
            from dima_isaac.sim.mujoco.engine import MujocoEngine

            return MujocoEngine(scene, envs, cfg)
        from dima_isaac.sim.warp import engine

        build: Any = engine.MujocoWarpEngine
        return cast(Engine, build(scene, envs, cfg, self.device))

    def _bind_drives(self) -> None:
        """How targets of positions and velocities (E, D) make the actuators' (E, U)."""
        names = ("driveMode", "stiffness", "damping")
        rows = [np.concatenate([actor.drives for actor in env.actors]) for env in self.world.envs]
        table = np.stack([np.stack(rows)[name].astype(np.float32) for name in names])
        mode, stiffness, damping = torch.from_numpy(table).to(self.engine.device)  # (E, D) each
        on = self.engine.actuator_dofs
        by_speed = mode[:, on] == DofDriveMode.DOF_MODE_VEL
        lead = torch.where(stiffness[:, on] > 0, damping[:, on] / stiffness[:, on].clamp(min=1e-9), 0.0)
        self._of_position = (~by_speed).float()
        self._of_velocity = torch.where(by_speed, 1.0, lead)
        self._position, self._velocity = torch.zeros_like(mode), torch.zeros_like(mode)

    # ---- reading -----------------------------------------------------------------------------------------------

    def acquire(self, name: str) -> Tensor:
        """The tensor of that name."""
        if not self.prepared:
            warn_once("Isaac Gym needs prepare_sim before a tensor is acquired; here it is done now")
            self.prepare()
        self._acquired.add(name)
        tensor: Tensor = getattr(self, name)
        return tensor

    def refresh(self, name: str) -> bool:
        """Bring one tensor up to date with the last step and with what was staged since."""
        if not self.prepared:
            raise UsageError("a tensor is refreshed before prepare_sim; call prepare_sim first")
        if not self.fetched:
            warn_once("Isaac Gym's CPU pipeline needs fetch_results(sim, True) after simulate and before a refresh")
            self.fetched = True
        if name == "body" and self._setters["roots"] + self._setters["joints"]:
            warn_once("links are refreshed between a reset and simulate: they are still where they were before it")
        self._refreshed.add(name)
        getattr(self, f"_refresh_{name}")()
        return True

    def _refresh_root(self) -> None:
        fresh = torch.where(self._root_mask[..., None], self._root, self.engine.root_state)
        self.root.copy_(fresh.view(self.root.shape))

    def _refresh_dof(self) -> None:
        now = torch.stack([self.engine.dof_pos, self.engine.dof_vel], -1)
        self.dof.copy_(torch.where(self._dof_mask[..., None], self._dof, now).view(self.dof.shape))

    def _refresh_body(self) -> None:
        self.body.copy_(self.engine.body_state.reshape(self.body.shape))

    def _refresh_sensor(self) -> None:
        force, torque = self.engine.force_sensor.split(3, -1)
        pos, quat = self._sensor_pose.split([3, 4], -1)
        torque = torque - torch.linalg.cross(pos.expand_as(force), force)
        local = torch.cat([rotate_inverse(quat, force), rotate_inverse(quat, torque)], -1)
        self.sensor.copy_(local.view(self.sensor.shape))

    def _refresh_dof_force(self) -> None:
        self.dof_force.copy_((self.engine.dof_force + self._last_effort()).view(-1))

    def _last_effort(self) -> Tensor | float:
        return self._effort[:, self._columns] if self._acting["qfrc_applied"] else 0.0

    # ---- writing -----------------------------------------------------------------------------------------------

    def set_roots(self, state: Tensor, actors: Tensor | None) -> bool:
        """Stage 13 numbers of ``actors`` (n,), ids in the whole simulation, from ``state`` (E A, 13); None for all."""
        self._once_a_frame("roots", "set_actor_root_state_tensor")
        chosen = self._actor_mask(actors)
        state = state.detach().to(self._root.device).view(self._root.shape)
        for actor, movable in enumerate(self._movable):
            if not movable and not _close(state[:, actor, :7], self._spawn[:, actor, :7], chosen[:, actor]):
                warn_once(f"'{self.engine.actor_names[actor]}' has a fixed base and stays where it was created")
        self._root = torch.where(chosen[..., None], state, self._root)
        self._root_mask |= chosen
        return True

    def set_joints(self, state: Tensor, actors: Tensor | None) -> bool:
        """Stage positions and velocities of the joints of ``actors`` from ``state`` (E D, 2)."""
        self._once_a_frame("joints", "set_dof_state_tensor")
        chosen = self._joint_mask(actors)
        state = state.detach().to(self._dof.device).view(self._dof.shape)
        self._dof = torch.where(chosen[..., None], state, self._dof)
        self._dof_mask |= chosen
        return True

    def set_positions(self, target: Tensor, actors: Tensor | None) -> bool:
        """Position targets (E D,) for the joints of ``actors``, held until they are set anew."""
        return self._set_targets(self._position, target, actors)

    def set_velocities(self, target: Tensor, actors: Tensor | None) -> bool:
        """Velocity targets (E D,), which act on the dampers of position drives, too; held likewise."""
        return self._set_targets(self._velocity, target, actors)

    def _set_targets(self, own: Tensor, target: Tensor, actors: Tensor | None) -> bool:
        target = target.detach().to(own.device).view(own.shape)
        own.copy_(torch.where(self._joint_mask(actors), target, own))
        on = self.engine.actuator_dofs
        self.engine.set_dof_target(
            self._position[:, on] * self._of_position + self._velocity[:, on] * self._of_velocity
        )
        return True

    def set_efforts(self, effort: Tensor, actors: Tensor | None) -> bool:
        """Forces and torques (E D,) on the joints of ``actors`` for one step."""
        effort = effort.detach().to(self._effort.device).view(len(self._effort), -1)
        before = self._effort[:, self._columns] if self._asked["qfrc_applied"] else torch.zeros_like(effort)
        self._effort = self._effort.clone()
        self._effort[:, self._columns] = torch.where(self._joint_mask(actors), effort, before)
        self._asked["qfrc_applied"] = True
        return True

    def push(self, force: Tensor | None, torque: Tensor | None, space: int) -> bool:
        """Force and torque (E L, 3) at the centres of mass of all links for one step, in world or link axes."""
        wrench = torch.zeros(len(self._wrench), len(self._bodies), 6, device=self._wrench.device)
        for part, (value, where) in enumerate(((force, slice(0, 3)), (torque, slice(3, 6)))):
            if value is None:
                continue
            value = value.detach().to(wrench.device).view(len(wrench), -1, 3)
            if space == CoordinateSpace.LOCAL_SPACE:
                value = rotate(self.engine.body_state[..., 3:7], value)
            wrench[..., where] = value * self._share[:, part : part + 1]
        self._wrench = torch.zeros_like(self._wrench)
        self._wrench[:, self._bodies] = wrench
        self._asked["xfrc_applied"] = True
        return True

    def _once_a_frame(self, what: str, call: str) -> None:
        self._setters[what] += 1
        if self._setters[what] > 1:
            warn_once(
                f"{call} or its _indexed form was called twice before simulate: Isaac Gym may drop what the first"
                " call wrote; gather all indices into one call"
            )

    def _actor_mask(self, actors: Tensor | None) -> Tensor:
        """(E, A) of ``actors``, which are numbered through all environments."""
        mask = torch.zeros_like(self._root_mask)
        if actors is None:
            return ~mask
        if actors.dtype != torch.int32:
            warn_once(f"actor indices are {actors.dtype}; Isaac Gym reads them as torch.int32 whatever they are")
        mask.view(-1)[actors.to(mask.device).long()] = True
        return mask

    def _joint_mask(self, actors: Tensor | None) -> Tensor:
        """(E, D): the joints of ``actors``."""
        mask = self._actor_mask(actors)
        if actors is not None and any(n == 0 and bool(mask[:, a].any()) for a, n in enumerate(self._own)):
            warn_once("an actor without joints is among those whose joints are set; Isaac Gym corrupts others then")
        return mask[:, self._dof_actor]

    # ---- time --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Write what is staged and advance by ``SimParams.dt``."""
        if not self.prepared:
            raise UsageError("simulate before prepare_sim; call prepare_sim first")
        if not self.fetched:
            warn_once("Isaac Gym's CPU pipeline needs fetch_results(sim, True) after every simulate")
        if self.frames == 1 and (stale := self._acquired - self._refreshed):
            warn_once(
                f"tensors that were acquired and are never refreshed stay as they are: {', '.join(sorted(stale))}"
            )
        engine = self.engine
        if self._setters["joints"]:
            pos, vel = (
                torch.where(self._dof_mask, self._dof[..., i], now)
                for i, now in enumerate((engine.dof_pos, engine.dof_vel))
            )
            engine.set_dof_state(self._dof_mask.any(1), pos, vel)
            self._dof_mask = torch.zeros_like(self._dof_mask)
        if self._setters["roots"]:
            for actor, movable in enumerate(self._movable):
                if movable:
                    engine.set_root_state(self._root_mask[:, actor], actor, self._root[:, actor])
            self._root_mask = torch.zeros_like(self._root_mask)
        for name, value in (("xfrc_applied", self._wrench), ("qfrc_applied", self._effort)):
            if self._asked[name] or self._acting[name]:
                engine.set_field(~self._nowhere, name, value if self._asked[name] else torch.zeros_like(value))
            self._acting[name], self._asked[name] = self._asked[name], False
        engine.step(self._nowhere)
        if engine.capabilities.on_host and bool(engine.bad.any()):
            warn_once(
                f"the physics of environment {int(engine.bad.nonzero()[0])} diverged in frame {self.frames}; it starts"
                " anew, and the program is not told: a smaller dt or more --substeps may help"
            )
        self.frames += 1
        self._setters.clear()
        self.fetched = self.device.type != "cpu"


def _close(a: Tensor, b: Tensor, where: Tensor) -> bool:
    """Whether ``a`` and ``b`` (E, n) are the same on the rows ``where`` (E,)."""
    return bool(((a - b).abs().amax(1) < 1e-3)[where].all())
