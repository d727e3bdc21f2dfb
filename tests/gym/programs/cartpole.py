"""A pole on a cart, as programs of Isaac Gym are written: python -m dima_isaac.gym cartpole.py FOLDER ENVS FRAMES."""

import json
import sys
from pathlib import Path

import torch
from isaacgym import gymapi, gymtorch
from isaacgym.torch_utils import torch_rand_float

CART, POLE, HALF = 1.0, 0.5, 0.4  # kg, kg, half the pole's length in m
URDF = f"""<robot name="cartpole">
<link name="rail"/>
<link name="cart"><inertial><mass value="{CART}"/><inertia ixx="0.01" iyy="0.01" izz="0.01" ixy="0" ixz="0" iyz="0"/>
</inertial><collision><geometry><box size="0.2 0.2 0.1"/></geometry></collision></link>
<link name="pole"><inertial><origin xyz="0 0 {HALF}"/><mass value="{POLE}"/>
<inertia ixx="{POLE * HALF**2 / 3}" iyy="{POLE * HALF**2 / 3}" izz="0.0001" ixy="0" ixz="0" iyz="0"/></inertial></link>
<joint name="slide" type="prismatic"><parent link="rail"/><child link="cart"/><axis xyz="0 1 0"/>
<limit lower="-4" upper="4" effort="1000" velocity="100"/></joint>
<joint name="swing" type="continuous"><parent link="cart"/><child link="pole"/><axis xyz="1 0 0"/></joint>
</robot>"""


class Cartpole:
    def __init__(self, folder, num_envs, dt=1.0 / 60.0, drive=gymapi.DOF_MODE_EFFORT):
        self.num_envs, self.gym = num_envs, gymapi.acquire_gym()
        params = gymapi.SimParams()
        params.dt, params.up_axis, params.gravity = dt, gymapi.UP_AXIS_Z, gymapi.Vec3(0.0, 0.0, -9.81)
        self.sim = self.gym.create_sim(0, -1, gymapi.SIM_PHYSX, params)
        plane = gymapi.PlaneParams()
        plane.normal = gymapi.Vec3(0.0, 0.0, 1.0)
        self.gym.add_ground(self.sim, plane)
        self.create_envs(Path(folder), drive)
        self.gym.prepare_sim(self.sim)
        state = gymtorch.wrap_tensor(self.gym.acquire_dof_state_tensor(self.sim))
        self.dof_state = state
        self.dof_pos, self.dof_vel = state.view(num_envs, self.num_dof, 2).unbind(-1)
        self.refresh()

    def create_envs(self, folder, drive):
        (folder / "cartpole.urdf").write_text(URDF)
        options = gymapi.AssetOptions()
        options.fix_base_link = True
        asset = self.gym.load_asset(self.sim, str(folder), "cartpole.urdf", options)
        self.num_dof = self.gym.get_asset_dof_count(asset)
        pose = gymapi.Transform(p=gymapi.Vec3(0.0, 0.0, 2.0))
        corner = gymapi.Vec3(1.0, 1.0, 1.0)
        for i in range(self.num_envs):
            env = self.gym.create_env(self.sim, gymapi.Vec3(-1.0, -1.0, 0.0), corner, 4)
            actor = self.gym.create_actor(env, asset, pose, "cartpole", i, 1, 0)
            properties = self.gym.get_actor_dof_properties(env, actor)
            properties["driveMode"][0], properties["driveMode"][1] = drive, gymapi.DOF_MODE_NONE
            properties["stiffness"][:], properties["damping"][:] = self.gains(i)
            self.gym.set_actor_dof_properties(env, actor, properties)

    def gains(self, i):
        return 0.0, 0.0

    def refresh(self):
        self.gym.refresh_dof_state_tensor(self.sim)

    def reset_idx(self, ids):
        self.dof_pos[ids] = torch_rand_float(-0.2, 0.2, (len(ids), 2), "cpu")
        self.dof_vel[ids] = torch_rand_float(-0.5, 0.5, (len(ids), 2), "cpu")
        ids = ids.to(torch.int32)
        self.gym.set_dof_state_tensor_indexed(
            self.sim, gymtorch.unwrap_tensor(self.dof_state), gymtorch.unwrap_tensor(ids), len(ids)
        )

    def step(self, effort):
        """``effort`` (E,) on the cart, N."""
        forces = torch.zeros(self.num_envs, self.num_dof)
        forces[:, 0] = effort
        self.gym.set_dof_actuation_force_tensor(self.sim, gymtorch.unwrap_tensor(forces))
        self.gym.simulate(self.sim)
        self.gym.fetch_results(self.sim, True)
        self.refresh()
        lost = (self.dof_pos[:, 0].abs() > 3.0) | (self.dof_pos[:, 1].abs() > torch.pi / 2)
        reward = 1.0 - self.dof_pos[:, 1] ** 2 - 0.01 * self.dof_vel[:, 0].abs() - 0.005 * self.dof_vel[:, 1].abs()
        return torch.where(lost, -2.0, reward), lost


def main(folder, num_envs, frames):
    torch.manual_seed(0)
    env, rewards, resets = Cartpole(folder, num_envs), [], 0
    env.reset_idx(torch.arange(num_envs))
    for _ in range(frames):
        reward, lost = env.step(400.0 * (torch.rand(num_envs) - 0.5))
        rewards.append(float(reward.mean()))
        resets += int(lost.sum())
        if lost.any():
            env.reset_idx(lost.nonzero().squeeze(-1))
    print(json.dumps({"rewards": rewards, "resets": resets, "finite": bool(env.dof_state.isfinite().all())}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
