"""``gymapi.Gym``: Isaac Gym's calls, by its names and in its order of arguments.

A call that is not here raises AttributeError with its name. Calls that only concern PhysX' buffers, aggregates or
looks do nothing. ``sim`` is a ``Simulation``, ``env`` an ``Env``, an actor's handle its number in its environment.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dima_isaac.errors import UsageError
from dima_isaac.gym import assets
from dima_isaac.gym.assets import Asset
from dima_isaac.gym.gymtorch import GymTensor, given
from dima_isaac.gym.rules import absent, forget, warn_once
from dima_isaac.gym.simulation import Simulation
from dima_isaac.gym.structs import (
    ActuatorProperties,
    AssetOptions,
    CameraProperties,
    CoordinateSpace,
    ForceSensorProperties,
    IndexDomain,
    PlaneParams,
    RigidBodyProperties,
    RigidShapeProperties,
    SimParams,
    SimType,
    TendonProperties,
    Transform,
    UpAxis,
    Vec3,
)
from dima_isaac.gym.world import Env, Placed
from dima_isaac.sim.render import Viewer

INVALID_HANDLE = -1


def _readers(name: str) -> tuple[Callable[..., GymTensor], Callable[..., bool]]:
    """The call that acquires a tensor of the simulation, and the one that refreshes it."""

    def acquire(self: "Gym", sim: Simulation) -> GymTensor:
        return GymTensor(sim.acquire(name))

    def refresh(self: "Gym", sim: Simulation) -> bool:
        return sim.refresh(name)

    return acquire, refresh


def _setters(
    write: Callable[[Simulation, torch.Tensor, torch.Tensor | None], bool],
) -> tuple[Callable[..., bool], Callable[..., bool]]:
    """The call that writes a tensor for every actor, and the one that does for ``count`` actors of the simulation."""

    def whole(self: "Gym", sim: Simulation, tensor: GymTensor) -> bool:
        return write(sim, given(tensor), None)

    def indexed(self: "Gym", sim: Simulation, tensor: GymTensor, actors: GymTensor, count: int) -> bool:
        return write(sim, given(tensor), given(actors)[:count])

    return whole, indexed


class Gym:
    """The calls; one object serves every simulation, as ``acquire_gym`` gives it."""

    def __getattr__(self, name: str) -> Any:
        return absent("Gym")(name)

    # ---- the simulation ----------------------------------------------------------------------------------------

    def create_sim(
        self, compute_device: int = 0, graphics_device: int = 0, type: int = SimType.SIM_FLEX, params: Any = None
    ) -> Simulation:
        params = deepcopy(params or SimParams())
        forget()
        if params.up_axis != UpAxis.UP_AXIS_Z:
            raise UsageError("sim_params.up_axis is UP_AXIS_Y; here z is up: set UP_AXIS_Z and gravity (0, 0, -9.81)")
        if type != SimType.SIM_PHYSX:
            warn_once("create_sim's engine is SIM_FLEX, which is its default; programs of rigid bodies want SIM_PHYSX")
        device = torch.device("cpu")
        if params.use_gpu_pipeline:
            if not torch.cuda.is_available():
                raise UsageError(
                    "the program asks for the GPU pipeline and torch finds no GPU; give it --sim_device cpu"
                    " --pipeline cpu, or sim_device=cpu pipeline=cpu"
                )
            device = torch.device("cuda", compute_device)
        return Simulation(params, device)

    def destroy_sim(self, sim: Simulation) -> None:
        if sim.prepared:
            sim.engine.close()

    def prepare_sim(self, sim: Simulation) -> bool:
        sim.prepare()
        return True

    def simulate(self, sim: Simulation) -> None:
        sim.step()

    def fetch_results(self, sim: Simulation, wait: bool) -> None:
        sim.fetched = True

    def get_sim_params(self, sim: Simulation) -> SimParams:
        return deepcopy(sim.params)

    def set_sim_params(self, sim: Simulation, params: SimParams) -> None:
        if sim.prepared and params != sim.params:
            warn_once(
                "sim_params are fixed once prepare_sim was called: what set_sim_params changes has no effect here"
            )
            return
        sim.params = sim.world.params = deepcopy(params)

    def get_frame_count(self, sim: Simulation) -> int:
        return sim.frames

    def sync_frame_time(self, sim: Simulation) -> None: ...

    def add_ground(self, sim: Simulation, params: PlaneParams) -> None:
        if params.normal.normalize() != Vec3(0.0, 0.0, 1.0) or params.distance:
            raise UsageError("the ground is the plane z = 0 here: set plane_params.normal = gymapi.Vec3(0, 0, 1)")
        if params.static_friction != 1.0 or params.restitution:
            warn_once("the ground has friction 1 and no restitution here; set the actors' friction instead")
        sim.world.ground = True

    # ---- assets ------------------------------------------------------------------------------------------------

    def load_asset(self, sim: Simulation, rootpath: str, filename: str, options: Any = None) -> Asset:
        return assets.load(Path(rootpath) / filename, options or AssetOptions())

    def create_box(self, sim: Simulation, width: float, height: float, depth: float, options: Any = None) -> Asset:
        return assets.primitive("box", [float(width), float(height), float(depth)], options or AssetOptions())

    def create_sphere(self, sim: Simulation, radius: float, options: Any = None) -> Asset:
        return assets.primitive("sphere", [float(radius)], options or AssetOptions())

    def create_texture_from_file(self, sim: Simulation, filename: str) -> int:
        return 0

    def create_asset_force_sensor(
        self, asset: Asset, body_idx: int, local_pose: Transform, props: ForceSensorProperties | None = None
    ) -> int:
        if props is not None and props.use_world_frame:
            raise NotImplementedError("force sensors report in their own frame here; rotate by the link's orientation")
        asset.sensors.append((body_idx, deepcopy(local_pose)))
        return len(asset.sensors) - 1

    def get_asset_rigid_body_count(self, asset: Asset) -> int:
        return len(asset.links)

    def get_asset_rigid_body_names(self, asset: Asset) -> list[str]:
        return list(asset.links)

    def get_asset_rigid_body_name(self, asset: Asset, index: int) -> str:
        return asset.links[index]

    def find_asset_rigid_body_index(self, asset: Asset, name: str) -> int:
        return _find(asset.links, name)

    def get_asset_rigid_shape_count(self, asset: Asset) -> int:
        return len(asset.shapes)

    def get_asset_rigid_shape_properties(self, asset: Asset) -> list[RigidShapeProperties]:
        return [RigidShapeProperties(friction=value) for value in asset.friction()]

    def get_asset_dof_count(self, asset: Asset) -> int:
        return len(asset.dofs)

    get_asset_joint_count = get_asset_dof_count

    def get_asset_dof_names(self, asset: Asset) -> list[str]:
        return list(asset.dofs)

    def get_asset_dof_dict(self, asset: Asset) -> dict[str, int]:
        return {name: i for i, name in enumerate(asset.dofs)}

    def find_asset_dof_index(self, asset: Asset, name: str) -> int:
        return _find(asset.dofs, name)

    def get_asset_dof_properties(self, asset: Asset) -> np.ndarray:
        return asset.dof_properties()

    def get_asset_actuator_count(self, asset: Asset) -> int:
        return len(asset.drives)

    def get_asset_actuator_joint_name(self, asset: Asset, index: int) -> str:
        return asset.drives[index][0]

    def get_asset_actuator_properties(self, asset: Asset) -> list[ActuatorProperties]:
        return [deepcopy(properties) for _, properties in asset.drives]

    def get_asset_tendon_count(self, asset: Asset) -> int:
        return len(asset.tendons)

    def get_asset_tendon_name(self, asset: Asset, index: int) -> str:
        return asset.tendons[index]

    def get_asset_tendon_properties(self, asset: Asset) -> list[TendonProperties]:
        return deepcopy(asset.tendon_properties)

    def set_asset_tendon_properties(self, asset: Asset, properties: list[TendonProperties]) -> bool:
        """Kept, and without effect: MuJoCo's own limits hold coupled joints."""
        asset.tendon_properties = deepcopy(properties)
        return True

    # ---- environments and actors -------------------------------------------------------------------------------

    def create_env(self, sim: Simulation, lower: Vec3, upper: Vec3, num_per_row: int) -> Env:
        if sim.prepared:
            raise UsageError("create_env after prepare_sim; create every environment first")
        sim.world.envs.append(Env(len(sim.world.envs), sim))
        return sim.world.envs[-1]

    def begin_aggregate(self, env: Env, bodies: int, shapes: int, self_collisions: bool) -> bool:
        return True

    def end_aggregate(self, env: Env) -> bool:
        return True

    def create_actor(
        self,
        env: Env,
        asset: Asset,
        pose: Transform,
        name: str = "",
        group: int = -1,
        filter: int = -1,
        segmentationId: int = 0,
    ) -> int:
        if env.sim.prepared:
            raise UsageError("create_actor after prepare_sim; create every actor first")
        env.actors.append(Placed(name or "actor", asset, list(pose), group, filter))
        return len(env.actors) - 1

    def get_env_origin(self, env: Env) -> Vec3:
        """Zero: pictures show one environment, and every position is in its own frame."""
        return Vec3()

    def find_actor_handle(self, env: Env, name: str) -> int:
        return _find([actor.name for actor in env.actors], name)

    def get_actor_index(self, env: Env, actor: int, domain: int) -> int:
        return actor if domain == IndexDomain.DOMAIN_ENV else env.before(lambda one: 1) + actor

    def get_actor_rigid_body_count(self, env: Env, actor: int) -> int:
        return len(env.actors[actor].asset.links)

    def get_actor_rigid_body_names(self, env: Env, actor: int) -> list[str]:
        return list(env.actors[actor].asset.links)

    def find_actor_rigid_body_index(self, env: Env, actor: int, name: str, domain: int) -> int:
        index = _find(env.actors[actor].asset.links, name)
        return index if index < 0 else index + _offset(env, actor, domain, lambda one: len(one.asset.links))

    def find_actor_rigid_body_handle(self, env: Env, actor: int, name: str) -> int:
        return self.find_actor_rigid_body_index(env, actor, name, IndexDomain.DOMAIN_ENV)

    def get_actor_rigid_body_properties(self, env: Env, actor: int) -> list[RigidBodyProperties]:
        placed = env.actors[actor]
        return [RigidBodyProperties(mass) for mass in placed.masses or placed.asset.masses()]

    def set_actor_rigid_body_properties(
        self, env: Env, actor: int, props: list[RigidBodyProperties], recomputeInertia: bool = False
    ) -> bool:
        """Masses; inertias follow them."""
        self._changeable(env, "set_actor_rigid_body_properties").actors[actor].masses = [one.mass for one in props]
        return True

    def get_actor_rigid_shape_properties(self, env: Env, actor: int) -> list[RigidShapeProperties]:
        placed = env.actors[actor]
        return [RigidShapeProperties(friction=value) for value in placed.friction or placed.asset.friction()]

    def set_actor_rigid_shape_properties(self, env: Env, actor: int, props: list[RigidShapeProperties]) -> bool:
        """Friction; what else a shape has is PhysX' own."""
        placed = self._changeable(env, "set_actor_rigid_shape_properties").actors[actor]
        placed.friction = [one.friction for one in props]
        return True

    def get_actor_dof_count(self, env: Env, actor: int) -> int:
        return len(env.actors[actor].asset.dofs)

    def get_actor_dof_names(self, env: Env, actor: int) -> list[str]:
        return list(env.actors[actor].asset.dofs)

    def get_actor_dof_properties(self, env: Env, actor: int) -> np.ndarray:
        return env.actors[actor].drives.copy()

    def set_actor_dof_properties(self, env: Env, actor: int, props: np.ndarray) -> bool:
        placed = self._changeable(env, "set_actor_dof_properties").actors[actor]
        if len(props) != len(placed.asset.dofs):
            raise ValueError(f"'{placed.name}' has {len(placed.asset.dofs)} joints, and properties are {len(props)}")
        placed.dof_properties = np.array(props)
        return True

    def enable_actor_dof_force_sensors(self, env: Env, actor: int) -> bool:
        return True

    def set_actor_scale(self, env: Env, actor: int, scale: float) -> bool:
        if scale != 1.0:
            raise NotImplementedError("set_actor_scale is not here; create another asset of that size")
        return True

    def set_rigid_body_color(self, env: Env, actor: int, body: int, kind: int, color: Vec3) -> None: ...

    def set_rigid_body_texture(self, env: Env, actor: int, body: int, kind: int, texture: int) -> None: ...

    def _changeable(self, env: Env, call: str) -> Env:
        if env.sim.prepared:
            raise NotImplementedError(f"{call} after prepare_sim: properties are fixed then; set them before it")
        return env

    # ---- tensors -----------------------------------------------------------------------------------------------

    def get_sim_actor_count(self, sim: Simulation) -> int:
        return sum(len(env.actors) for env in sim.world.envs)

    def get_sim_dof_count(self, sim: Simulation) -> int:
        return sum(len(actor.asset.dofs) for env in sim.world.envs for actor in env.actors)

    def get_sim_rigid_body_count(self, sim: Simulation) -> int:
        return sum(len(actor.asset.links) for env in sim.world.envs for actor in env.actors)

    acquire_actor_root_state_tensor, refresh_actor_root_state_tensor = _readers("root")
    acquire_dof_state_tensor, refresh_dof_state_tensor = _readers("dof")
    acquire_rigid_body_state_tensor, refresh_rigid_body_state_tensor = _readers("body")
    acquire_force_sensor_tensor, refresh_force_sensor_tensor = _readers("sensor")
    acquire_dof_force_tensor, refresh_dof_force_tensor = _readers("dof_force")

    set_actor_root_state_tensor, set_actor_root_state_tensor_indexed = _setters(Simulation.set_roots)
    set_dof_state_tensor, set_dof_state_tensor_indexed = _setters(Simulation.set_joints)
    set_dof_position_target_tensor, set_dof_position_target_tensor_indexed = _setters(Simulation.set_positions)
    set_dof_velocity_target_tensor, set_dof_velocity_target_tensor_indexed = _setters(Simulation.set_velocities)
    set_dof_actuation_force_tensor, set_dof_actuation_force_tensor_indexed = _setters(Simulation.set_efforts)

    def apply_rigid_body_force_tensors(
        self,
        sim: Simulation,
        forceTensor: GymTensor | None = None,
        torqueTensor: GymTensor | None = None,
        space: int = CoordinateSpace.ENV_SPACE,
    ) -> bool:
        force, torque = (None if one is None else given(one) for one in (forceTensor, torqueTensor))
        return sim.push(force, torque, space)

    # ---- pictures: MuJoCo's window, which keyboard events of Isaac Gym's programs do not reach ------------------

    def create_viewer(self, sim: Simulation, props: CameraProperties) -> Viewer:
        return Viewer(sim.engine)

    def destroy_viewer(self, viewer: Viewer) -> None:
        viewer.close()

    def viewer_camera_look_at(self, viewer: Viewer, env: Env | None, eye: Vec3, target: Vec3) -> None:
        """Without effect: the window looks at one environment, and the mouse turns it."""

    def subscribe_viewer_keyboard_event(self, viewer: Viewer, key: int, action: str) -> None: ...

    def query_viewer_has_closed(self, viewer: Viewer) -> bool:
        return viewer.closed

    def query_viewer_action_events(self, viewer: Viewer) -> list[Any]:
        return []

    def step_graphics(self, sim: Simulation) -> None: ...

    def draw_viewer(self, viewer: Viewer, sim: Simulation, render_collision: bool = False) -> None:
        viewer.show()

    def poll_viewer_events(self, viewer: Viewer) -> None: ...

    def clear_lines(self, viewer: Viewer) -> None: ...

    def add_lines(self, viewer: Viewer, env: Env | None, count: int, points: Any, colors: Any) -> None: ...


def _find(names: list[str], name: str) -> int:
    return names.index(name) if name in names else INVALID_HANDLE


def _offset(env: Env, actor: int, domain: int, count: Any) -> int:
    """How many of something come before those of ``actor`` in ``domain``."""
    if domain == IndexDomain.DOMAIN_ACTOR:
        return 0
    inside = sum(count(one) for one in env.actors[:actor])
    return inside if domain == IndexDomain.DOMAIN_ENV else inside + env.before(count)
