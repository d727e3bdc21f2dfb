"""Two hands and an egg, as programs of Isaac Gym are written: hand_over.py FOLDER ENVS FRAMES.

FOLDER holds ``hand.xml``; this program writes its own egg there.
"""

import json
import math
import sys
from pathlib import Path

import torch
from isaacgym import gymapi, gymtorch
from isaacgym.torch_utils import quat_conjugate, quat_from_angle_axis, quat_mul, scale, tensor_clamp, to_torch

EGG = """<mujoco model="egg"><worldbody><body name="egg"><freejoint/>
<geom type="ellipsoid" size="0.03 0.03 0.04" density="500" condim="4"/></body></worldbody></mujoco>"""
DISTAL = ("FFJ0", "MFJ0", "RFJ0", "LFJ0")  # follow their neighbours


class HandOver:
    def __init__(self, folder, num_envs):
        self.num_envs, self.gym = num_envs, gymapi.acquire_gym()
        params = gymapi.SimParams()
        params.up_axis, params.gravity = gymapi.UP_AXIS_Z, gymapi.Vec3(0.0, 0.0, -9.81)
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
        self.roots = self.root_states.view(num_envs, -1, 13)
        self.refresh()
        self.start = self.root_states.clone()
        self.targets = torch.zeros(num_envs, 2 * self.num_dofs)

    def create_envs(self, folder):
        (folder / "egg.xml").write_text(EGG)
        options = gymapi.AssetOptions()
        options.fix_base_link, options.disable_gravity, options.angular_damping = True, True, 0.0
        options.default_dof_drive_mode = gymapi.DOF_MODE_NONE
        hand = self.gym.load_asset(self.sim, str(folder), "hand.xml", options)
        self.num_dofs = self.gym.get_asset_dof_count(hand)
        names = [
            self.gym.get_asset_actuator_joint_name(hand, i) for i in range(self.gym.get_asset_actuator_count(hand))
        ]
        driven = [self.gym.find_asset_dof_index(hand, name) for name in names]
        self.driven = to_torch(driven + [self.num_dofs + i for i in driven], dtype=torch.long, device="cpu")
        options = gymapi.AssetOptions()
        options.angular_damping = 0.0
        egg = self.gym.load_asset(self.sim, str(folder), "egg.xml", options)
        options.disable_gravity = True
        goal = self.gym.load_asset(self.sim, str(folder), "egg.xml", options)
        half_turn = gymapi.Quat.from_euler_zyx(0.0, 0.0, math.pi)
        poses = {
            "hand": (hand, (0.0, 0.0, 0.5), gymapi.Quat()),
            "another_hand": (hand, (0.0, -1.0, 0.5), half_turn),
            "egg": (egg, (0.0, -0.39, 0.54), gymapi.Quat()),
            "goal": (goal, (0.0, -0.64, 0.54), gymapi.Quat()),
        }
        self.egg_actors, self.goal_actors = [], []
        for i in range(self.num_envs):
            env = self.gym.create_env(self.sim, gymapi.Vec3(-1.0, -1.0, 0.0), gymapi.Vec3(1.0, 1.0, 1.0), 4)
            for name, (asset, at, turn) in poses.items():
                group = i + self.num_envs if name == "goal" else i
                masks = 0 if name in ("egg", "goal") else -1
                pose = gymapi.Transform(p=gymapi.Vec3(*at), r=turn)
                actor = self.gym.create_actor(env, asset, pose, name, group, masks, 0)
                index = self.gym.get_actor_index(env, actor, gymapi.DOMAIN_SIM)
                if name in ("egg", "goal"):
                    (self.egg_actors if name == "egg" else self.goal_actors).append(index)
        limits = self.gym.get_actor_dof_properties(env, 0)
        self.lower, self.upper = (to_torch(limits[side], device="cpu").repeat(2) for side in ("lower", "upper"))
        self.egg_actors = to_torch(self.egg_actors, dtype=torch.long, device="cpu")
        self.goal_actors = to_torch(self.goal_actors, dtype=torch.long, device="cpu")

    def refresh(self):
        self.gym.refresh_dof_state_tensor(self.sim)
        self.gym.refresh_actor_root_state_tensor(self.sim)
        self.gym.refresh_rigid_body_state_tensor(self.sim)

    def turned(self, count):
        angles = math.pi * (2.0 * torch.rand(2, count) - 1.0)
        x, y = (to_torch([axis] * count, device="cpu") for axis in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]))
        return quat_mul(quat_from_angle_axis(angles[0], x), quat_from_angle_axis(angles[1], y))

    def reset_idx(self, ids):
        """Eggs and goals anew, and all joints at rest."""
        eggs, goals = self.egg_actors[ids], self.goal_actors[ids]
        self.root_states[eggs], self.root_states[goals] = self.start[eggs], self.start[goals]
        self.root_states[eggs, :3] += 0.01 * (2.0 * torch.rand(len(ids), 3) - 1.0)
        self.root_states[eggs, 3:7] = self.turned(len(ids))
        self.root_states[goals, 3:7] = self.turned(len(ids))
        moved = torch.cat([eggs, goals]).to(torch.int32)
        self.gym.set_actor_root_state_tensor_indexed(
            self.sim, gymtorch.unwrap_tensor(self.root_states), gymtorch.unwrap_tensor(moved), len(moved)
        )
        self.dof_state.view(self.num_envs, -1, 2)[ids] = 0.0
        self.targets[ids] = 0.0
        hands = torch.stack([4 * ids, 4 * ids + 1], 1).flatten().to(torch.int32)
        self.gym.set_dof_state_tensor_indexed(
            self.sim, gymtorch.unwrap_tensor(self.dof_state), gymtorch.unwrap_tensor(hands), len(hands)
        )

    def step(self, actions):
        """``actions`` (E, 40) in [-1, 1]: where in their ranges the driven joints are wanted."""
        d = self.driven
        wanted = scale(actions, self.lower[d], self.upper[d])
        self.targets[:, d] = tensor_clamp(wanted, self.lower[d], self.upper[d])
        self.gym.set_dof_position_target_tensor(self.sim, gymtorch.unwrap_tensor(self.targets))
        self.gym.simulate(self.sim)
        self.gym.fetch_results(self.sim, True)
        self.refresh()
        egg, goal = self.roots[:, 2], self.roots[:, 3]
        between = quat_mul(egg[:, 3:7], quat_conjugate(goal[:, 3:7]))
        theta = 2.0 * torch.asin(between[:, :3].norm(dim=-1).clamp(max=1.0))
        reward = torch.exp(-0.2 * (50.0 * (egg[:, :3] - goal[:, :3]).norm(dim=-1) + theta))
        return reward, egg[:, 2] <= 0.24


def main(folder, num_envs, frames):
    torch.manual_seed(0)
    env, rewards, resets = HandOver(folder, num_envs), [], 0
    env.reset_idx(torch.arange(num_envs))
    for _ in range(frames):
        reward, dropped = env.step((0.64 * torch.randn(num_envs, 40)).clamp(-1.0, 1.0))
        rewards.append(float(reward.mean()))
        resets += int(dropped.sum())
        if dropped.any():
            env.reset_idx(dropped.nonzero().squeeze(-1))
    finite = bool(env.bodies.isfinite().all())
    print(json.dumps({"rewards": rewards, "resets": resets, "finite": finite}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
