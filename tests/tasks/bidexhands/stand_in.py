"""The benchmark's own task classes, built by ``dima_isaac.gym`` from where its user's copy lies.

Either they run on MuJoCo, or nothing moves and a test writes the tensors that they read.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import mujoco
import torch
import yaml
from torch import Tensor

from dima_isaac.gym import gymapi, gymutil
from dima_isaac.gym.__main__ import modules as gym_modules
from dima_isaac.gym.assets import Asset
from dima_isaac.gym.torch_utils import quat_mul, quat_rotate


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """``isaacgym`` and the copy's ``bidexhands`` can be imported within; pictures are never drawn."""
    bare = ModuleType("bidexhands")  # whose own __init__ imports every learner
    bare.__path__ = [str(folder / "bidexhands")]
    pictures = {"matplotlib": ModuleType("matplotlib"), "matplotlib.pyplot": ModuleType("matplotlib.pyplot")}
    pictures["matplotlib.pyplot"].axis = None  # type: ignore[attr-defined]
    added = {**gym_modules(), "bidexhands": bare, **pictures}
    before = {name: sys.modules.get(name) for name in added}
    sys.modules.update(added)
    yield
    for name in [name for name in sys.modules if name in added or name.partition(".")[0] == "bidexhands"]:
        del sys.modules[name]
    sys.modules.update({name: module for name, module in before.items() if module is not None})


def build(folder: Path, task: str, num_envs: int) -> Any:
    """The benchmark's class ``task`` with ``num_envs`` environments, within ``importable``."""
    source = folder / "bidexhands"
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", task).lower().replace("over2_underarm", "over2underarm")
    cls = getattr(importlib.import_module(f"bidexhands.tasks.{words}"), task)
    cfg = yaml.safe_load((source / "cfg" / f"{task}.yaml").read_text())
    cfg["env"] |= {"numEnvs": num_envs, "observationType": "full_state"}
    cfg["env"].setdefault("asset", {})["assetRoot"] = str(folder / "assets")
    params = gymapi.SimParams()
    gymutil.parse_sim_config(cfg["sim"], params)
    return cls(cfg, params, gymapi.SIM_PHYSX, "cpu", 0, True)


def hold(sim: Any) -> None:
    """Let nothing move: the tensors of ``sim`` keep what is written into them."""
    sim.refresh, sim.step = (lambda name: True), (lambda: None)
    for tensor in (sim.root, sim.dof, sim.body, sim.sensor, sim.dof_force):
        tensor.zero_()


def poses(asset: Asset, root: Tensor, angles: Tensor) -> Tensor:
    """Poses (E, links, 7) of an asset whose root is at ``root`` (E, 7), with joints at ``angles`` (E, dofs)."""
    data, links = mujoco.MjData(asset.model), [asset.model.body(link).id for link in asset.links]
    rows = []
    for row in angles:
        data.qpos[asset.model.jnt_qposadr[asset.joints]] = row
        mujoco.mj_kinematics(asset.model, data)
        rows.append(torch.cat([torch.tensor(data.xpos[links]), torch.tensor(data.xquat[links])], 1))
    pos, w, xyz = torch.stack(rows).float().split([3, 1, 3], -1)
    at = root[:, None].expand(-1, len(links), -1)
    return torch.cat([at[..., :3] + quat_rotate(at[..., 3:], pos), quat_mul(at[..., 3:], torch.cat([xyz, w], -1))], -1)
