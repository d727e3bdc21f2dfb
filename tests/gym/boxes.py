"""Small simulations by Isaac Gym's calls: free boxes, and a sled on a rail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dima_isaac.gym import gymapi, gymtorch

SLED = """<mujoco><worldbody><body name="rail"><geom size="0.01" mass="1"/><body name="sled">
<joint name="slide" type="slide" axis="1 0 0"/><geom type="box" size="0.1 0.1 0.1" mass="2"
contype="0" conaffinity="0"/>
</body></body></worldbody></mujoco>"""
GYM = gymapi.acquire_gym()


class Small:
    """E environments of one asset; ``change`` (environment, handle, number) runs before ``prepare_sim``."""

    def __init__(
        self,
        asset: Callable[[Any], Any],
        envs: int = 2,
        gravity: float = 0.0,
        ground: bool = False,
        pose: gymapi.Transform | None = None,
        change: Callable[[Any, int, int], None] = lambda env, actor, i: None,
        prepare: bool = True,
        **params: Any,
    ) -> None:
        settings = gymapi.SimParams()
        settings.up_axis, settings.gravity = gymapi.UP_AXIS_Z, gymapi.Vec3(0, 0, -gravity)
        for name, value in params.items():
            setattr(settings, name, value)
        self.envs, self.sim = envs, GYM.create_sim(0, -1, gymapi.SIM_PHYSX, settings)
        if ground:
            GYM.add_ground(self.sim, gymapi.PlaneParams())
        made = asset(self.sim)
        for i in range(envs):
            env = GYM.create_env(self.sim, gymapi.Vec3(), gymapi.Vec3(), 1)
            change(env, GYM.create_actor(env, made, pose or gymapi.Transform(), "it", i, 0, 0), i)
        if prepare:
            GYM.prepare_sim(self.sim)
            self.root = gymtorch.wrap_tensor(GYM.acquire_actor_root_state_tensor(self.sim))
            self.dof = gymtorch.wrap_tensor(GYM.acquire_dof_state_tensor(self.sim))

    def step(self, frames: int = 1) -> None:
        for _ in range(frames):
            GYM.simulate(self.sim)
            GYM.fetch_results(self.sim, True)
            GYM.refresh_actor_root_state_tensor(self.sim)
            GYM.refresh_dof_state_tensor(self.sim)

    def send(self, call: str, *values: Any) -> None:
        """One setter with torch tensors, numbers and lists of actors."""
        wrapped = [gymtorch.unwrap_tensor(v) if isinstance(v, torch.Tensor) else v for v in values]
        getattr(GYM, call)(self.sim, *wrapped)


def box(**options: Any) -> Callable[[Any], Any]:
    """A cube of 0.2 m and 8 kg that spins freely."""
    return lambda sim: GYM.create_box(sim, 0.2, 0.2, 0.2, chosen(angular_damping=0.0, **options))


def sled(folder: Path) -> Callable[[Any], Any]:
    """2 kg on a rail along x."""
    (folder / "sled.xml").write_text(SLED)
    return lambda sim: GYM.load_asset(sim, str(folder), "sled.xml", chosen(fix_base_link=True))


def chosen(**values: Any) -> gymapi.AssetOptions:
    options = gymapi.AssetOptions()
    for name, value in values.items():
        setattr(options, name, value)
    return options
