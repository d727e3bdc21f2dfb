"""Rewards, resets, successes and states of the benchmark's own classes beside ours, in the same states.

For owners of a copy: ``DIMA_BIDEXHANDS=folder pytest -m originals -s``; the folder holds ``bidexhands`` and ``assets``.
Its classes are built by ``dima_isaac.gym`` and nothing moves: our states (``profile=compat``) are written into their
tensors, and links of objects are placed by the copy's own URDFs.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dima_isaac import make
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.gym.assets import Asset
from dima_isaac.run.catalog import Catalog
from dima_isaac.tasks.bidexhands.hands.hand import JOINTS
from dima_isaac.tasks.bidexhands.hands.handles import HandleTask
from dima_isaac.tasks.bidexhands.hands.originals import ORIGINALS
from tests.tasks.bidexhands import stand_in

COPY = os.environ.get("DIMA_BIDEXHANDS", "")
pytestmark = [
    pytest.mark.originals,
    pytest.mark.filterwarnings("ignore::dima_isaac.gym.rules.IsaacGymWarning"),  # nothing is simulated
    pytest.mark.skipif(not COPY, reason="DIMA_BIDEXHANDS names no copy of the benchmark"),
]
TASKS = [name for name in Catalog().names("task") if name.startswith("ShadowHand")]
ENVS, ROUNDS = 32, 24
OTHER_SUCCESS = ("ShadowHandPushBlock", "ShadowHandSwitch")  # in no profile as published: oddities 3 and 4
OURS = {  # the benchmark's actor -> ours; "object" is the first prop where it is not named
    "ShadowHandTwoCatchUnderarm": {"another_object": "egg1", "another_goal_object": "goal1"},
    "ShadowHandReOrientation": {"another_object": "cube1", "another_goal_object": "goal1"},
    "ShadowHandBlockStack": {"block": "left"},
    "ShadowHandPushBlock": {"block": "left"},
    "ShadowHandGraspAndPlace": {"block": "cube"},
    "ShadowHandSwitch": {"switch": "left"},
}


@pytest.fixture(scope="module")
def benchmark() -> Iterator[Path]:
    """The copy, importable for as long as a module's tests run."""
    folder = Path(COPY).expanduser().absolute()
    script, torch.jit.script = torch.jit.script, lambda function: function
    with stand_in.importable(folder):
        yield folder
    torch.jit.script = script


@dataclass
class Comparison:
    """Differences over all states compared."""

    reward: Tensor  # (S,)
    ended: int  # states that end the episode, and those in which the two disagree on that
    resets: int
    solved: int
    successes: int
    columns: list[str]  # those that differ

    def __str__(self) -> str:
        most, usual = float(self.reward.max()), float(self.reward.quantile(0.99))
        of_ends, of_successes = f"{self.resets} of {self.ended}", f"{self.successes} of {self.solved}"
        return f"{len(self.reward)} | {most:.0e} | {usual:.0e} | {of_ends} | {of_successes} | {len(self.columns)}"


class Mirror:
    """Our states in the tensors of a benchmark's environment."""

    def __init__(self, env: VecEnv, theirs: Any, task: str) -> None:
        self.env, self.sim = env, theirs.sim
        stand_in.hold(self.sim)
        engine = env.engine
        props = [name for name in engine.actor_names if not name.startswith("hand")]
        named = {"hand": "hand0", "another_hand": "hand1", "object": props[0], "goal_object": "goal0"}
        named |= OURS.get(task, {})
        balls = iter(f"ball{k}" for k in range(100))
        self.actors: list[tuple[str, Asset]] = []  # our names, "" for what is not here, and their assets
        for actor in self.sim.world.envs[0].actors:
            ours = next(balls) if actor.name == "ball" else named.get(actor.name, actor.name)
            self.actors.append((ours if ours in engine.actor_names else "", actor.asset))

    def copy(self) -> None:
        """Write everything that the environment shows now."""
        engine, envs = self.env.engine, self.env.num_envs
        roots = self.sim.root.view(envs, len(self.actors), 13)
        bodies = self.sim.body.view(envs, -1, 13)
        dofs, force = self.sim.dof.view(envs, -1, 2), self.sim.dof_force.view(envs, -1)
        body = dof = 0
        for k, (name, asset) in enumerate(self.actors):
            if name:
                roots[:, k] = engine.root_state[:, engine.actor_names.index(name)]
                own = [engine.dof_names.index(f"{name}/{joint}") for joint in _joints(name, asset, self.env)]
                span = slice(dof, dof + len(own))
                dofs[:, span, 0], dofs[:, span, 1] = engine.dof_pos[:, own], engine.dof_vel[:, own]
                force[:, span] = engine.dof_force[:, own]
                if name.startswith("hand"):
                    for i, link in enumerate(asset.links):
                        ours = f"{name}/{link.partition(':')[2]}"
                        if ours in engine.link_names:
                            bodies[:, body + i] = engine.body_state[:, engine.link_names.index(ours)]
                else:
                    linked = stand_in.poses(asset, roots[:, k, :7], dofs[:, span, 0])
                    bodies[:, body : body + len(asset.links), :7] = linked
                    bodies[:, body, 7:] = roots[:, k, 7:]
            body, dof = body + len(asset.links), dof + len(asset.dofs)
        self.sim.sensor.copy_(engine.force_sensor.flatten(0, 1))


def _joints(name: str, asset: Asset, env: VecEnv) -> tuple[str, ...]:
    """Our names of an asset's joints, in its order."""
    if name.startswith("hand"):
        assert tuple(joint.partition(":")[2] for joint in asset.dofs) == JOINTS
        return JOINTS
    (prop,) = (prop for prop in env.task.props if prop.actor.name == name) if asset.dofs else (None,)
    return ORIGINALS[Path(prop.actor.asset.path).stem].joints if prop else ()


def teleport(env: VecEnv, rng: torch.Generator) -> None:
    """Joints anywhere, eggs and cubes near their goals, fingertips near handles: states in which rewards differ."""
    engine, task, envs = env.engine, env.task, env.num_envs
    everyone = torch.ones(envs, dtype=torch.bool)
    low, high = engine.dof_lower.clamp_min(-torch.pi), engine.dof_upper.clamp_max(torch.pi)
    u, vel = torch.rand(envs, len(low), generator=rng), torch.randn(envs, len(low), generator=rng)
    engine.set_dof_state(everyone, torch.lerp(low, high, u), vel)
    close = torch.rand(envs, 1, generator=rng).square() * 0.3  # m
    for k, name in enumerate(engine.actor_names):
        goal = "goal" if "goal" in engine.actor_names else f"goal{name[-1:]}"
        root = engine.root_state[:, k].clone()
        prop = next((prop for prop in task.props if prop.actor.name == name), None)
        if prop is None or not prop.actor.free:
            continue
        if goal in engine.actor_names:
            root[:, :7] = engine.root_state[:, engine.actor_names.index(goal), :7]
        root[:, :3] += close * torch.randn(envs, 3, generator=rng)
        root[:, 3:7] += close * torch.randn(envs, 4, generator=rng)
        root[:, 3:7] /= root[:, 3:7].norm(dim=1, keepdim=True)
        root[:, 7:] = torch.randn(envs, 6, generator=rng)
        engine.set_root_state(everyone, k, root)
    engine.refresh(everyone)
    if "kettle" in engine.actor_names:  # its spout to the bucket
        k, points = engine.actor_names.index("kettle"), task.points()
        root = engine.root_state[:, k].clone()
        root[:, :3] += points[:, 1] - points[:, 2] + close * torch.randn(envs, 3, generator=rng)
        engine.set_root_state(everyone, k, root)
        engine.refresh(everyone)
    if isinstance(task, HandleTask) and task.hands.free:
        away = task.points()[:, :2] - task.tips().mean(2)
        for side in range(2):
            root = engine.root_state[:, side].clone()
            root[:, :3] += away[:, side] + close * torch.randn(envs, 3, generator=rng)
            engine.set_root_state(everyone, side, root)
        engine.refresh(everyone)


def compare(folder: Path, task: str) -> Comparison:
    """Random actions from the start, and from teleported states."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = stand_in.build(folder, task, ENVS)
    env = make(task, num_envs=ENVS, engine="mujoco", seed=0, device="cpu", profile="compat")
    mirror = Mirror(env, theirs, task)
    env.reset()
    dims = env.spec.dims
    rewards, columns, ended, resets, solved, successes = [], torch.zeros(dims.state), 0, 0, 0, 0
    names = [env.engine.dof_names[dof].partition("/") for dof in env.engine.actuator_dofs.tolist()]
    driven = [len(JOINTS) * int(hand[-1]) + JOINTS.index(joint) for hand, _, joint in names]
    targets = torch.zeros(())
    for k in range(ROUNDS):
        action = 2.0 * torch.rand(ENVS, dims.agents, dims.action, generator=rng) - 1.0
        with contextlib.redirect_stdout(io.StringIO()):
            theirs.pre_physics_step(action.flatten(1))
        row = env.step(action)
        counted = ~row.first
        off = (theirs.cur_targets[:, driven] - env.task.state_dict()["targets"])[counted].abs()
        targets = torch.maximum(targets, off.amax() if len(off) else targets)
        if k % 2:
            teleport(env, rng)
        out, state = env.task.compute_reward(env.engine), env.task.state(env.engine)
        mirror.copy()
        for goals, name in (("goal_states", "goal0"), ("goal_another_states", "goal1")):
            if name in env.engine.actor_names:  # orientations are drawn anew in every episode
                goal = env.engine.root_state[:, env.engine.actor_names.index(name)]
                getattr(theirs, goals)[:, 3:7] = goal[:, 3:7]
        theirs.progress_buf[:], theirs.successes[:], theirs.reset_buf[:] = 0, 0, 0
        theirs.post_physics_step()
        rewards.append((out.reward - theirs.rew_buf).abs()[counted])
        away = (state - theirs.obs_buf.clamp(-5.0, 5.0)).abs()[counted]
        columns = torch.maximum(columns, away.amax(0) if len(away) else columns)
        ended, solved = ended + int(out.terminal[counted].sum()), solved + int(out.success[counted].sum())
        resets += int(((theirs.reset_buf > 0) != out.terminal)[counted].sum())
        successes += int(((theirs.successes > 0) != out.success)[counted].sum())
        theirs.reset_buf[:], theirs.reset_goal_buf[:] = 0, 0
    env.close()
    described = [env.task.describe(k) for k in range(dims.state)]
    # float32 rounds a base's angles coarsely where its pitch is near a right angle
    wrong = [name for name, away in zip(described, columns, strict=True) if away > (1e-2 if " base " in name else 1e-4)]
    wrong += ["joint targets"] if targets > 1e-6 else []
    return Comparison(torch.cat(rewards), ended, resets, solved, successes, wrong)


@pytest.mark.parametrize("task", TASKS)
def test_rewards_resets_successes_and_states_are_the_benchmark_s(benchmark, task):
    found = compare(benchmark, task)
    print(f"\n| {task} | {found} |")
    assert float(found.reward.max()) < 1e-3 and float(found.reward.quantile(0.99)) < 1e-4
    assert found.resets == 0 and found.columns == []
    assert found.successes == 0 or task in OTHER_SUCCESS
