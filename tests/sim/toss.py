"""Small worlds that every engine can build in a moment, and the words to drive them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dima_isaac.sim.config import MujocoConfig
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.mujoco.engine import MujocoEngine
from dima_isaac.sim.scene import Actor, Box, Ellipsoid, Mjcf, Scene

LOPSIDED = """<mujoco><worldbody><body name="stick" quat="0.8 0.6 0 0">
<inertial pos="0.3 -0.1 0.2" mass="2" diaginertia="0.02 0.03 0.04"/>
<geom name="g" size="0.01" contype="0" conaffinity="0"/>
</body></worldbody></mujoco>"""

PENDULUM = """<mujoco><worldbody><body name="base"><geom size="0.02" mass="1"/>
<body name="arm" pos="0 0 0.1"><joint name="swing" axis="0 1 0" range="-2 2" damping="0.1" limited="true"/>
<geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.01" mass="0.5"/></body></body></worldbody>
<actuator><position name="drive" joint="swing" kp="5" ctrlrange="-2 2" ctrllimited="true"/></actuator></mujoco>"""

BOX = '<mujoco><worldbody><body name="box"><geom type="box" size="0.1 0.1 0.1" mass="2"/></body></worldbody></mujoco>'

VIEWS = ("root_state", "dof_pos", "dof_vel", "dof_force", "body_state", "force_sensor", "bad")
BALL, MARK = 1, 3  # actors of ``TOSS``

TOSS = Scene(
    actors=[
        Actor("rig", Mjcf(xml=PENDULUM), pos=(0.5, 0.0, 0.5), fixed=True),
        Actor("ball", Ellipsoid((0.05, 0.05, 0.05)), pos=(0.0, 0.0, 0.3)),
        Actor("table", Box((0.4, 0.4, 0.2)), pos=(0.0, 0.0, 0.1), fixed=True),
        Actor("mark", Ellipsoid((0.02, 0.02, 0.02)), pos=(0.0, 0.2, 0.3), marker=True),
    ],
    links=["rig/arm", "ball"],
    force_sensors=["ball"],
)
"""A pendulum, a ball that falls on a box, and a marker: everything an engine has, in a small world."""

_no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
KINDS = [
    "mujoco",
    pytest.param("mujoco_warp", marks=pytest.mark.slow),  # the first run on a machine compiles kernels for minutes
    pytest.param("mujoco_warp on cuda", marks=[pytest.mark.gpu, pytest.mark.slow, _no_gpu]),
]
"""Every engine that this machine can run; the last one is the same code on a GPU."""


def build(kind: str, scene: Scene, envs: int, **cfg: Any) -> Engine:
    """``envs`` copies of ``scene`` on the engine ``kind``."""
    if kind == "mujoco":
        return MujocoEngine(scene, envs, MujocoConfig(**{"threads": 1, **cfg}))
    warp = pytest.importorskip("dima_isaac.sim.warp.engine", reason="the extra gpu is not installed")
    from dima_isaac.sim.config import MujocoWarpConfig

    device = torch.device("cuda:0" if kind.endswith("cuda") else "cpu")
    return warp.MujocoWarpEngine(scene, envs, MujocoWarpConfig(**cfg), device)


def everywhere(engine: Engine, value: bool = True) -> torch.Tensor:
    return torch.full((engine.num_envs,), value, dtype=torch.bool, device=engine.device)


def only(engine: Engine, *envs: int) -> torch.Tensor:
    """The mask of ``envs``."""
    mask = everywhere(engine, False)
    mask[list(envs)] = True
    return mask


def on(engine: Engine, rows: list) -> torch.Tensor:
    return torch.tensor(rows, device=engine.device)


def pose(engine: Engine, *pos: float) -> torch.Tensor:
    """(E, 13) at rest at ``pos``, unturned."""
    return on(engine, [*pos, 0.0, 0.0, 0.0, 1.0] + [0.0] * 6).expand(engine.num_envs, -1)


def views(engine: Engine) -> list[torch.Tensor]:
    return [getattr(engine, name).clone() for name in VIEWS]


def drive(engine: Engine, steps: int, seed: int = 0, hold: torch.Tensor | None = None) -> None:
    """Random targets; the same for the same seed on every engine."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        target = 2.0 * torch.rand(engine.num_envs, 1, generator=generator) - 1.0
        engine.set_dof_target(target.to(engine.device))
        engine.step(everywhere(engine, False) if hold is None else hold)


def same(engine: Engine, mine: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Equal to the bit where the engine promises it."""
    if engine.capabilities.deterministic or mine.dtype == torch.bool:
        return torch.equal(mine, theirs)
    return torch.allclose(mine, theirs, atol=1e-4)
