"""A body on four legs that runs along x, as programs of Isaac Gym are written: ant.py FOLDER ENVS FRAMES."""

import json
import sys
from pathlib import Path

import torch
from isaacgym import gymapi, gymtorch
from isaacgym.torch_utils import quat_from_angle_axis, quat_rotate, quat_rotate_inverse, to_torch

GEAR = 15.0  # N m


def leg(name, x, y):
    return f"""<body name="{name}" pos="{0.2 * x} {0.2 * y} 0">
<joint name="{name}_hip" type="hinge" axis="0 0 1" range="-40 40"/>
<geom type="capsule" fromto="0 0 0 {0.2 * x} {0.2 * y} 0" size="0.08"/>
<body name="{name}_foot" pos="{0.2 * x} {0.2 * y} 0">
<joint name="{name}_ankle" type="hinge" axis="{-y} {x} 0" range="30 100"/>
<geom type="capsule" fromto="0 0 0 {0.4 * x} {0.4 * y} 0" size="0.08"/></body></body>"""


CORNERS = {"front_left": (1, 1), "front_right": (1, -1), "back_left": (-1, 1), "back_right": (-1, -1)}
LEGS = "".join(leg(name, *corner) for name, corner in CORNERS.items())
MOTORS = "".join(
    f'<motor name="{name}_{part}" joint="{name}_{part}" gear="{GEAR}"/>'
    for name in CORNERS
    for part in ("hip", "ankle")
)
MJCF = f"""<mujoco model="ant"><compiler angle="degree"/><option timestep="0.01"/>
<default><joint armature="0.01" damping="0.1" limited="true"/><geom density="5" friction="1.5 0.1 0.1"/></default>
<worldbody><geom name="floor" type="plane" size="1 1 1"/><body name="torso" pos="0 0 0.75"><freejoint name="root"/>
<geom type="sphere" size="0.25"/>{LEGS}</body></worldbody>
<actuator>{MOTORS}</actuator><sensor><jointpos joint="front_left_hip"/></sensor></mujoco>"""


class Ant:
    def __init__(self, folder, num_envs):
        self.num_envs, self.gym = num_envs, gymapi.acquire_gym()
        params = gymapi.SimParams()
        params.up_axis, params.gravity = gymapi.UP_AXIS_Z, gymapi.Vec3(0.0, 0.0, -9.81)
        params.physx.num_position_iterations = 4
        self.sim = self.gym.create_sim(0, -1, gymapi.SIM_PHYSX, params)
        plane = gymapi.PlaneParams()
        plane.normal = gymapi.Vec3(0.0, 0.0, 1.0)
        self.gym.add_ground(self.sim, plane)
        self.create_envs(Path(folder))
        self.gym.prepare_sim(self.sim)
        wrap = gymtorch.wrap_tensor
        self.root_states = wrap(self.gym.acquire_actor_root_state_tensor(self.sim))
        self.dof_state = wrap(self.gym.acquire_dof_state_tensor(self.sim))
        self.bodies = wrap(self.gym.acquire_rigid_body_state_tensor(self.sim)).view(num_envs, -1, 13)
        self.feet = wrap(self.gym.acquire_force_sensor_tensor(self.sim)).view(num_envs, 4, 6)
        self.dof_pos, self.dof_vel = self.dof_state.view(num_envs, -1, 2).unbind(-1)
        self.refresh()
        self.start = self.root_states.clone()
        self.rest = torch.clamp(torch.zeros_like(self.dof_pos), self.lower, self.upper)
        self.target = to_torch([1000.0, 0.0], device="cpu")

    def create_envs(self, folder):
        (folder / "ant.xml").write_text(MJCF)
        options = gymapi.AssetOptions()
        options.default_dof_drive_mode = gymapi.DOF_MODE_NONE
        options.angular_damping = 0.0
        asset = self.gym.load_asset(self.sim, str(folder), "ant.xml", options)
        motors = self.gym.get_asset_actuator_properties(asset)
        self.gears = to_torch([motor.motor_effort for motor in motors], device="cpu")
        bodies = [
            self.gym.get_asset_rigid_body_name(asset, i) for i in range(self.gym.get_asset_rigid_body_count(asset))
        ]
        self.foot_bodies = [self.gym.find_asset_rigid_body_index(asset, n) for n in bodies if n.endswith("foot")]
        for body in self.foot_bodies:
            self.gym.create_asset_force_sensor(asset, body, gymapi.Transform())
        pose = gymapi.Transform()
        pose.p = gymapi.Vec3(0.0, 0.0, 0.75)
        corner = gymapi.Vec3(2.0, 2.0, 2.0)
        for i in range(self.num_envs):
            env = self.gym.create_env(self.sim, -corner, corner, 4)
            actor = self.gym.create_actor(env, asset, pose, "ant", i, 1, 0)
        limits = self.gym.get_actor_dof_properties(env, actor)
        self.lower, self.upper = to_torch(limits["lower"], device="cpu"), to_torch(limits["upper"], device="cpu")

    def refresh(self):
        self.gym.refresh_dof_state_tensor(self.sim)
        self.gym.refresh_actor_root_state_tensor(self.sim)
        self.gym.refresh_force_sensor_tensor(self.sim)
        self.gym.refresh_rigid_body_state_tensor(self.sim)

    def reset_idx(self, ids):
        self.dof_pos[ids] = torch.clamp(self.rest[ids] + 0.4 * torch.rand(len(ids), 8) - 0.2, self.lower, self.upper)
        self.dof_vel[ids] = 0.2 * torch.rand(len(ids), 8) - 0.1
        states, actors = self.start.clone(), ids.to(torch.int32)
        angle = 0.2 * torch.rand(len(ids)) - 0.1
        states[ids, 3:7] = quat_from_angle_axis(angle, to_torch([[0.0, 0.0, 1.0]] * len(ids), device="cpu"))
        self.gym.set_actor_root_state_tensor_indexed(
            self.sim, gymtorch.unwrap_tensor(states), gymtorch.unwrap_tensor(actors), len(ids)
        )
        self.gym.set_dof_state_tensor_indexed(
            self.sim, gymtorch.unwrap_tensor(self.dof_state), gymtorch.unwrap_tensor(actors), len(ids)
        )

    def step(self, actions):
        """``actions`` (E, 8) in [-1, 1]."""
        before = (self.target - self.root_states[:, :2]).norm(dim=-1)
        self.gym.set_dof_actuation_force_tensor(self.sim, gymtorch.unwrap_tensor(actions * self.gears))
        self.gym.simulate(self.sim)
        self.gym.fetch_results(self.sim, True)
        self.refresh()
        progress = (before - (self.target - self.root_states[:, :2]).norm(dim=-1)) * 60.0
        upright = quat_rotate(self.root_states[:, 3:7], to_torch([[0.0, 0.0, 1.0]] * self.num_envs, device="cpu"))[:, 2]
        self.local_vel = quat_rotate_inverse(self.root_states[:, 3:7], self.root_states[:, 7:10])
        fallen = (self.root_states[:, 2] < 0.31) | (upright < 0.5)
        return progress + 0.1 * (upright > 0.93) - 0.005 * actions.square().sum(-1), fallen


def main(folder, num_envs, frames):
    torch.manual_seed(0)
    env, rewards, resets, pushed = Ant(folder, num_envs), [], 0, 0.0
    env.reset_idx(torch.arange(num_envs))
    for _ in range(frames):
        reward, fallen = env.step(2.0 * torch.rand(num_envs, 8) - 1.0)
        rewards.append(float(reward.mean()))
        pushed = max(pushed, float(env.feet[..., :3].norm(dim=-1).max()))
        resets += int(fallen.sum())
        if fallen.any():
            env.reset_idx(fallen.nonzero().squeeze(-1))
    finite = bool(env.root_states.isfinite().all())
    height = float(env.root_states[:, 2].mean())
    print(json.dumps({"rewards": rewards, "resets": resets, "finite": finite, "height": height, "feet": pushed}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
