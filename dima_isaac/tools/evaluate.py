"""How good a policy is, as a table and one JSON line; with ``probe`` also how good the world model is.

Episodes start from seeds that neither training nor its evaluations use. Intervals are 95 % bootstrap percentiles
over episodes, Wilson's for success: they say how well this checkpoint is measured, not how much seeds of training
differ.
"""

import json
import math
import os
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dima_isaac.config import RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.run import build, checkpoint
from dima_isaac.run.catalog import Catalog, described
from dima_isaac.run.folder import RESUME, ROOT
from dima_isaac.schema import AUTO
from dima_isaac.tools import play, probe, table
from dima_isaac.tools.config import Agent, EvaluateConfig, PlayConfig
from dima_isaac.tools.policies import controller
from dima_isaac.tools.restore import Restored, newest, restore, restore_or_compose
from dima_isaac.tools.statistics import bootstrap, iqm, wilson
from dima_isaac.training.evaluate import episodes
from dima_isaac.types import Controller


def main(cfg: EvaluateConfig, changes: dict[str, str], compose: Callable[..., RunConfig], catalog: Catalog) -> int:
    """Measure a checkpoint's policy, or a scripted one on a task."""
    return report(cfg, *restore_or_compose(cfg, changes, compose, catalog))


def test(cfg: RunConfig, changes: dict[str, str], catalog: Catalog) -> int:
    """``train test=True``: evaluate ``cfg.checkpoint`` instead of training; with ``headless=False`` watch it.

    ``changes`` are as in ``restore``; what else the run would learn by has no effect.
    """
    where = cfg.checkpoint
    if where in RESUME:
        place = os.path.expanduser(cfg.run_dir) or ROOT / (cfg.experiment or str(cfg.task["name"]))
        where = str(newest(Path(place)))
    own = EvaluateConfig(checkpoint=where, engine=cfg.engine["name"])
    own = replace(own, **{key: getattr(cfg, key) for key in ("seed", "sim_device", "rl_device", "threads")})
    own.num_envs = own.num_envs if cfg.num_envs == AUTO else int(cfg.num_envs)
    restored = restore(own, catalog, changes)
    checkpoint.check_task(restored.path, restored.state, cfg.task["name"])
    if cfg.headless:
        return report(own, restored, restored.cfg)
    with closing(restored.build_env(own.num_envs, own.seed)) as env:
        return play.watch(env, controller(own, restored, env), PlayConfig())


def report(cfg: EvaluateConfig, restored: Restored | None, run: RunConfig) -> int:
    """Measure, print the tables and, last, one JSON line."""
    count = min(cfg.num_envs, cfg.episodes)
    if cfg.probe and restored:
        restored.check_world()  # before anything is measured
    built = restored.build_env(count, cfg.seed) if restored else build.build_env(run, count, cfg.seed)
    with closing(built) as env:
        notes = f"  ({', '.join(env.spec.notes)})" if env.spec.notes else ""
        print(f"task        {described(run.task)}{notes}")
        print(f"engine      {described(run.engine)}")
        if restored:
            print(f"checkpoint  {restored.path}  ({restored.env_steps:,} environment steps, preset {run.preset})")
        print(f"episodes    {cfg.episodes} of {env.spec.episode_length} control steps at most\n")
        exploring = " (exploring)" if cfg.agent is Agent.trained and cfg.explore else ""
        names = {cfg.agent.name + exploring: cfg.agent}
        if cfg.baseline:
            names |= {Agent.zero.name: Agent.zero, Agent.random.name: Agent.random}
        policies = {name: controller(replace(cfg, agent=agent), restored, env) for name, agent in names.items()}
        results = {name: measure(env, policy, cfg.episodes) for name, policy in policies.items()}
    print(_results_table(results))
    line: dict[str, Any] = {
        "task": run.task["name"],
        "engine": run.engine["name"],
        "checkpoint": str(restored.path) if restored else None,
        "env_steps": restored.env_steps if restored else None,
        "seed": cfg.seed,
        "episodes": cfg.episodes,
        "policies": results,
    }
    if cfg.probe and restored:
        line["probe"] = probe.probe(restored, cfg.num_envs, cfg.seed)
    sys.stdout.flush()
    print(json.dumps(line, allow_nan=False))
    return 0


def measure(env: VecEnv, policy: Controller, count: int) -> dict[str, float]:
    """``count`` episodes of ``policy``: every environment's first, then its next, until there are enough.

    Returns return_mean, return_std, return_iqm and the ends of its 95 % interval, return_min, return_max, length and,
    where the task has a goal, success (with its interval).
    """
    seen = [episodes(env, policy, number + 1) for number in range(math.ceil(count / env.num_envs))]
    total, success, length = (
        torch.cat([getattr(part, name).double() for part in seen])[:count].cpu().numpy()
        for name in ("total", "success", "length")
    )
    lower, upper = bootstrap(total)
    low, high = wilson(int(success.sum()), len(success))
    solved = {"success": float(success.mean()), "success_low": low, "success_high": high}
    return {
        "return_mean": float(total.mean()),
        "return_std": float(total.std()),
        "return_iqm": float(iqm(total)),
        "return_iqm_low": float(lower),
        "return_iqm_high": float(upper),
        "return_min": float(total.min()),
        "return_max": float(total.max()),
        "length": float(length.mean()),
        **(solved if env.spec.goal else {}),
    }


def _results_table(results: dict[str, dict[str, float]]) -> str:
    goal = all("success" in r for r in results.values())
    head = ["policy", "return mean", "std", "IQM", "95% interval", "min", "max", "length"]
    head += ["success", "95% interval"] if goal else []
    rows = []
    for name, r in results.items():
        interval = f"{r['return_iqm_low']:.3f} .. {r['return_iqm_high']:.3f}"
        mean, std, middle, least, most = (f"{r['return_' + key]:.3f}" for key in ("mean", "std", "iqm", "min", "max"))
        row = [name, mean, std, middle, interval, least, most, f"{r['length']:.1f}"]
        if goal:
            row += [f"{100 * r['success']:.1f} %", f"{100 * r['success_low']:.1f} .. {100 * r['success_high']:.1f}"]
        rows.append(row)
    return table.text(head, rows)
