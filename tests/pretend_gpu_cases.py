"""What ``test_pretend_gpu.py`` runs in a process of its own: prints one JSON object, case -> what went wrong, or ''."""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dima_isaac.config import Algo, RunConfig
from dima_isaac.envs.task import Task
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.run import build, resolve
from dima_isaac.run.catalog import Catalog
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger
from dima_isaac.tools.dream import record
from dima_isaac.training.build import loop_class
from dima_isaac.training.loop import TrainingLoop
from dima_isaac.world_model.config import DecoderKind, Reveal, RewardConfig, RewardKind
from dima_isaac.world_model.world_model import WorldModel
from tests.guard import no_synchronisation
from tests.pretend_gpu import DeterminismError, MixedDevicesError, OnDevice, on_host, pretend_gpu
from tests.toy import toy_env
from tests.training.test_trainer import config, dyna, off_policy

ENVS = 3


def refuses(device: torch.device) -> None:
    """The pretended device refuses what CUDA refuses, so that the other cases can fail."""
    on, off = torch.ones(3, device=device), torch.ones(3)
    for mix in (
        lambda: on + off,
        lambda: torch.cat([on, off]),
        lambda: off[on.long()],
        lambda: on.index_select(0, torch.zeros(1, dtype=torch.int64)),
        lambda: torch.where(off > 0, on, 0.0),
        lambda: torch.nn.Linear(3, 2)(on),
    ):
        try:
            mix()
        except MixedDevicesError:
            continue
        raise AssertionError("an operation of tensors of two devices raised no error")
    for host in (lambda: on.numpy(), lambda: memoryview(on)):
        try:
            host()
        except (RuntimeError, TypeError):
            continue
        raise AssertionError("host memory was taken from a tensor of the device")
    for order in (lambda: on.cumsum(0), lambda: on.median(0)):
        try:
            order()
        except DeterminismError:
            continue
        raise AssertionError("a sum without an order was allowed")
    assert (on + 1.0).device == on.to(device).device == device and on.cpu().tolist() == [1.0] * 3
    on[1:] = off[1:].to(device) * 2.0
    assert on.tolist() == [1.0, 2.0, 2.0]


def built(name: str, values: dict[str, Any], device: torch.device) -> tuple[VecEnv, Any]:
    """The task on the device, and the engine of the host below it."""
    catalog = Catalog()
    cfg = RunConfig(
        task={**catalog.values("task", name), **values}, engine=catalog.values("engine", "mujoco"), num_envs=ENVS,
        sim_device="cpu", rl_device="cpu", threads=1,
    )  # fmt: skip
    cfg, _ = resolve.resolve_run(cfg, catalog)
    game = build.build_task(cfg)
    engine = build.build_engine(cfg, game, ENVS)
    return VecEnv(OnDevice(engine, device), game, 0, device), engine  # type: ignore[arg-type]


hand_over = partial(built, "ShadowHandOver", {})


def task(name: str, values: dict[str, Any], device: torch.device) -> None:
    """Reset, steps, a world that breaks, saving and continuing; nothing waits for the device."""
    env, engine = built(name, values, device)
    dims = env.spec.dims

    def action() -> Tensor:
        return torch.randn(ENVS, dims.agents, dims.action, device=device).clamp(-1.0, 1.0)

    env.reset()
    for _ in range(3):
        env.step(action())
    engine.bad[0] = True
    with no_synchronisation():
        for _ in range(2):
            step = env.step(action())
    assert {value.device for value in vars(step).values()} == {device}
    env.load_state_dict(on_host(copy.deepcopy(env.state_dict())))
    env.step(action())
    env.reset_where(torch.ones(ENVS, dtype=torch.bool, device=device))
    if type(env.task).set_physics_state is not Task.set_physics_state:
        qpos, qvel = env.physics_state()
        assert qpos.dtype == qvel.dtype == np.float64
        moved = env.set_physics_state(qpos + np.array([[0.01], [0.0], [0.0]]), qvel)
        assert moved.first.tolist() == [True, False, False]
    assert env.task.observe(torch.randn(5, dims.state, device=device)).device == device
    env.close()


def run(changed: RunConfig, device: torch.device, sim: torch.device | None = None) -> None:
    """A run that is saved and continued, as on a GPU: what a checkpoint brings back is on the host."""
    sim = sim or device
    cfg = replace(changed, rl_device=str(device), sim_device=str(sim))

    def trainer(folder: RunFolder, steps: int) -> TrainingLoop:
        logger = Logger(folder, cfg, steps)
        envs = [toy_env(size, seed, sim, out=device) for size, seed in ((4, 0), (3, 1))]
        made = loop_class(cfg)(replace(cfg, max_env_steps=steps), folder, *envs, logger, SimpleNamespace(stop=None))
        made.save = lambda final=False: True  # a file of these tensors could not be read
        return made

    with tempfile.TemporaryDirectory() as place, RunFolder(Path(place) / "run") as folder:
        one = trainer(folder, 80)
        one.run()
        state = on_host(one.persistence.state_dict())
        two = trainer(folder, 120)
        two.persistence.load_state_dict(state)
        two.run()
    kind = "agent" if cfg.algo is Algo.sac else "dynamics"
    updates = [trainer.schedule.updates_due[kind].done for trainer in (one, two)]
    assert two.env_steps == 120 and 0 < updates[0] < updates[1]
    assert {value.device for value in vars(two.step).values()} == {device}


def dream_video(device: torch.device) -> None:
    """The simulator beside a dream, as ``play world=dream`` films it."""
    env, stage = (hand_over(device)[0] for _ in range(2))
    blank = np.zeros((24, 32, 3), dtype=np.uint8)
    for shown_env in (env, stage):
        shown_env.engine.render = lambda *_: blank  # type: ignore[method-assign]
    spec = env.spec
    world = WorldModel(config(80, 0).world_model, env.task, device)
    world.track(env.reset().state)
    told = SimpleNamespace(
        world=lambda env: world, cfg=config(80, 0), device=device, build_env=lambda *_: stage,
    )  # fmt: skip
    asked = SimpleNamespace(seed=0, width=32, height=24, episode=1)
    shown: list[Any] = []
    policy = lambda obs: torch.zeros(ENVS, spec.dims.agents, spec.dims.action, device=device)
    record(told, env, policy, SimpleNamespace(add=shown.append), asked, 6)  # type: ignore[arg-type]
    assert len(shown) == 7


def runs() -> dict[str, RunConfig]:
    """Learners that differ in what they compute."""
    base = config(120, eval_every=0)
    base = replace(base, train=replace(base.train, probe_every=80))
    world, learn = base.world_model, replace(base.train.learn, decoder_per_step=0.125)
    slow = replace(base, train=replace(base.train, learn=learn))
    published = RewardConfig(width=16, kind=RewardKind.gpt, double_step=True)
    denoiser = replace(world.denoiser, ema=0.99, optim=replace(world.denoiser.optim, warmup=10))
    return {
        "default": base,
        "sac": off_policy(base),
        "dyna": dyna(base),
        "published": replace(slow, world_model=replace(world, reward=published, denoiser=denoiser,
                             decoder=DecoderKind.vq)),
        "minibatches": replace(base, agent=replace(base.agent, ppo=replace(base.agent.ppo, minibatches=2)),
                               world_model=replace(world, denoiser=replace(world.denoiser, reveal=Reveal.cumulative))),
    }  # fmt: skip


def cases() -> dict[str, Callable[[torch.device], None]]:
    """Every case by name."""
    found: dict[str, Callable[[torch.device], None]] = {"refuses": refuses}
    for name in Catalog().names("task"):
        if name not in ("pettingzoo", "template"):  # the one has an engine of its own, the other is for copying
            found[name] = partial(task, name, {})
    found["HalfCheetah harl"] = partial(task, "HalfCheetah", {"protocol": "harl"})
    found["ShadowHandOver randomized"] = partial(task, "ShadowHandOver", {"randomize": True})
    for name, cfg in runs().items():
        found[f"run {name}"] = partial(run, cfg)
    found["dream video"] = dream_video
    found["run beside physics on the host"] = partial(run, runs()["default"], sim=torch.device("cpu"))
    return found


def main() -> None:
    """Run them all."""
    wrong = {}
    sys.stdout, result = sys.stderr, sys.stdout
    with pretend_gpu() as device:
        for name, case in cases().items():
            try:
                torch.manual_seed(0)
                case(device)
                wrong[name] = ""
            except Exception:
                wrong[name] = traceback.format_exc()
    print(json.dumps(wrong), file=result)


if __name__ == "__main__":
    main()
