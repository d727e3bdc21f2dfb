"""How fast the whole loop runs, and where its time goes.

The loop is that of ``algo=dima`` or ``algo=sac``, method for method, in its steady state: learning in every round.
Evaluation, probes and checkpoints are left out. Time is exclusive: what a part spends in another part counts there
only. Under torchrun several ranks are measured together; the shares of time are rank 0's.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dima_isaac import ranks
from dima_isaac.bench.config import BenchConfig
from dima_isaac.bench.timing import count_synchronizations, gpu_memory, product_rate, synchronize
from dima_isaac.config import Algo, RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import UsageError
from dima_isaac.nn.captured import WARM
from dima_isaac.run import build
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger
from dima_isaac.run.signals import Signals
from dima_isaac.tools import table
from dima_isaac.training.build import loop_class
from dima_isaac.training.clock import DeviceTimer
from dima_isaac.training.config import CheckpointConfig, EvalConfig
from dima_isaac.training.dyna import Dyna
from dima_isaac.training.loop import TrainingLoop
from dima_isaac.training.trainer import Trainer
from dima_isaac.types import Rollout, Window

DREAM = 5  # steps of the dreams of a learner from replay, which without tests would have none
PARTS = ("physics", "collect", "replay", "dynamics", "reward", "decoder", "dream", "policy")


def suite(cfg: BenchConfig, resolved: Callable[..., RunConfig]) -> dict[str, Any]:
    """``suite=train``: measure, print a table, and return the values for the JSON line.

    Raises:
        UsageError: the algorithm runs in rl-games' loop.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # started by torchrun: together these processes are one run
        ranks.start()
        if ranks.rank():
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  until the process ends
    run = steady(resolved())
    if run.algo not in (Algo.dima, Algo.sac):
        raise UsageError(
            f"suite=train measures algo=dima and algo=sac, not algo={run.algo.name}, whose loop is rl-games' own:"
            " a run's metrics have its time/env_steps_per_s."
        )
    with (
        closing(build.build_env(run, int(run.num_envs) // ranks.count(), ranks.seed(run.seed))) as env,
        closing(build.build_env(run, 1, run.seed + build.EVALUATION)) as eval_env,
    ):
        result = bench_train(run, env, eval_env, cfg.seconds)
    rows = [[name, f"{100 * share:.1f} %"] for name, share in {**result["share"], "other": result["other"]}.items()]
    print(table.text(["part", "share of time"], rows))
    print(f"{result['env_steps_per_s']:.1f} environment steps/s, whole loop without evaluation and saving")
    facts = {"task": run.task["name"], "algo": run.algo.name, "engine": run.engine["name"], "preset": run.preset}
    return {**facts, "num_envs": run.num_envs, "ranks": ranks.count(), **result}


class Profiler:
    """Exclusive seconds of wrapped calls, by the device's clock: the innermost running one is charged."""

    def __init__(self, device: torch.device) -> None:
        self._running: list[str] = []
        self._timer = DeviceTimer(device)

    def wrap(self, owner: Any, method: str, part: str) -> None:
        """Charge calls of ``owner.method`` to ``part``."""
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._running.append(part)
            self._timer.mark(part)
            try:
                return inner(*args, **kwargs)
            finally:
                self._running.pop()
                self._timer.mark(self._running[-1] if self._running else None)

        setattr(owner, method, timed)

    def read(self) -> dict[str, float]:
        """Seconds of every part. Waits for the device."""
        return {**dict.fromkeys(PARTS, 0.0), **self._timer.read()}


def steady(cfg: RunConfig) -> RunConfig:
    """``cfg`` that learns in every round after the first, and does nothing else on the side."""
    agent = replace(cfg.agent, sac=replace(cfg.agent.sac, start=cfg.train.learn.round))
    learn = replace(cfg.train.learn, start=cfg.train.learn.round, behaviour_start=cfg.train.learn.round)
    train = replace(
        cfg.train,
        learn=learn,
        eval=EvalConfig(every=0, episodes=1),
        checkpoint=CheckpointConfig(every=0),
        probe_every=0,
    )
    return replace(cfg, agent=agent, train=train, checkpoint="", wandb_activate=False, max_env_steps=1 << 60)


def bench_train(cfg: RunConfig, env: VecEnv, eval_env: VecEnv, seconds: float) -> dict[str, Any]:
    """Warm up for two rounds, count operations in the second, then run whole rounds for about ``seconds``.

    Returns ``env_steps_per_s``, ``imagined_steps_per_s`` while dreaming, each part's share of the time, and
    ``flops_per_step``, the learners' operations for one environment step. On a GPU also ``share_of_bf16`` of its
    measured product rate, ``memory`` and ``waits``, how often the host waited for it in one round.
    """
    with tempfile.TemporaryDirectory() as place, RunFolder(Path(place) / "run") as folder:
        logger = Logger(folder, cfg, cfg.max_env_steps)
        loop = loop_class(cfg)(replace(cfg, compile=False), folder, env, eval_env, logger, Signals())
        setattr(loop, "log_metrics", dict)  # noqa: B010  a row of metrics would choose the dreams' length anew
        if isinstance(loop, Dyna):
            loop.horizon = min(DREAM, cfg.train.learn.horizon)
        _round(loop)
        flops = _flops(loop)  # before anything is captured: what a graph does cannot be counted
        if cfg.compile is True:
            loop.capture()
            for _ in range(WARM + 1):
                _round(loop)
        dreamt = _counted(loop)
        profiler = _profiled(loop)
        synchronize(loop.device)
        dreamt.clear()
        steps, rounds, began = loop.env_steps, 0, time.perf_counter()
        while not rounds or ranks.from_first(lambda: time.perf_counter() - began < seconds):
            _round(loop)
            synchronize(loop.device)  # as the logger does, once a round
            rounds += 1
        spent, steps = time.perf_counter() - began, loop.env_steps - steps
        charged, imagined = profiler.read(), sum(dreamt)
        gpu: dict[str, Any] = {
            "waits": count_synchronizations(lambda: _round(loop), loop.device),
            "memory": gpu_memory(loop.device),
        }
        logger.close()
    if loop.device.type == "cuda":
        gpu["share_of_bf16"] = flops * steps / spent / product_rate(loop.device, torch.bfloat16)
    dreaming = charged["dream"]
    return {
        "env_steps_per_s": steps / spent,
        "imagined_steps_per_s": imagined / dreaming if dreaming and imagined else None,
        "env_steps": steps,
        "rounds": rounds,
        "seconds": spent,
        "share": {name: value / spent for name, value in charged.items()},
        "flops_per_step": flops,
        **{name: value for name, value in gpu.items() if value is not None},
        "other": 1.0 - sum(charged.values()) / spent,
    }


def _counted(loop: TrainingLoop) -> list[int]:
    """The steps of every dream of ``loop`` from now on."""
    steps = list[int]()
    if not isinstance(loop, Trainer):
        return steps
    dream = loop.dream

    def counted(start: Window) -> Rollout:
        rollout = dream(start)
        steps.append(rollout.reward.numel())
        return rollout

    setattr(loop, "dream", counted)  # noqa: B010  a method, for the type checker
    return steps


def _profiled(loop: TrainingLoop) -> Profiler:
    """A profiler of the parts of ``loop``."""
    profiler = Profiler(loop.device)
    parts: list[tuple[Any, str, str]] = [
        (loop.env.engine, "step", "physics"),
        (loop, "collect", "collect"),
        (loop.replay, "sample", "replay"),
        (loop.replay, "transitions", "replay"),
        (loop.agent, "update", "policy"),
    ]
    if isinstance(loop, Trainer):
        parts += [
            (loop.world, "update_dynamics", "dynamics"),
            (loop.world, "update_reward", "reward"),
            (loop.world, "update_decoder", "decoder"),
            (loop, "dream_up" if isinstance(loop, Dyna) else "update_policy", "dream"),
        ]
    for owner, method, part in parts:
        profiler.wrap(owner, method, part)
    return profiler


def _flops(loop: TrainingLoop) -> float:
    """Operations of one round per environment step, all networks forward and backward; attention left out."""
    before = loop.env_steps
    with FlopCounterMode(display=False) as counter:
        _round(loop)
    return counter.get_total_flops() / (loop.env_steps - before)


def _round(loop: TrainingLoop) -> None:
    """What a loop does between two rows of metrics."""
    due = loop.schedule.learning_due.next
    while loop.schedule.learning_due.next == due:
        loop.collect()
        loop.learn()
