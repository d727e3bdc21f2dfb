"""Speed, as a table and one JSON line that names the machine and the versions it was measured with."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dima_isaac.bench import roofline as limits
from dima_isaac.cli.options import Asked, BenchConfig, Suite
from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError
from dima_isaac.run import build
from dima_isaac.run.catalog import Catalog
from dima_isaac.run.folder import versions
from dima_isaac.tools import table

_PACKAGES = ("torch", "numpy", "mujoco", "mujoco-warp", "warp-lang", "gymnasium-robotics", "dima-isaac")


def main(asked: Asked, composed: Callable[..., RunConfig], catalog: Catalog) -> int:
    """``bench``: one suite. The last line is one JSON object."""
    cfg: BenchConfig = asked.cfg
    if cfg.suite is not Suite.mamujoco and not cfg.task:
        raise UsageError(f"suite={cfg.suite.name} needs task=NAME. Known: {', '.join(catalog.names('task'))}.")
    if cfg.suite is Suite.imagine:
        catalog.check("preset", cfg.against)
    result = _SUITES[cfg.suite](cfg, asked, composed, catalog)
    line = {"suite": cfg.suite.name, **result, "machine": machine()}
    sys.stdout.flush()
    print(json.dumps(line, allow_nan=False))
    return 0


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, threads, device, versions, commit."""
    known = versions()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu(),
        "cores": build.cores(),
        "load": round(os.getloadavg()[0], 2),
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu,
        "cuda": torch.version.cuda if gpu else None,
        "python": known["python"],
        "versions": {name: known["packages"][name] for name in _PACKAGES if name in known["packages"]},
        "commit": known["git"][:12] + ("+changes" if known["git"] and known["git_dirty"] else ""),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _resolved(run: RunConfig, catalog: Catalog) -> RunConfig:
    resolved, _ = build.resolve_run(run, catalog)
    build.set_global_state(resolved)
    return resolved


def _engine(cfg: BenchConfig, asked: Asked, composed: Callable[..., RunConfig], catalog: Catalog) -> dict[str, Any]:
    from dima_isaac.bench.engine import bench_engine

    run = _resolved(composed(), catalog)
    env = build.build_env(run, int(run.num_envs), run.seed)
    try:
        result = bench_engine(env, cfg.seconds, seed=cfg.seed, at_least=cfg.env_steps)
    finally:
        env.close()
    rows = [[name, _number(value)] for name, value in result.items() if isinstance(value, (int, float))]
    print(table.text(["engine " + run.engine["name"], run.task["name"]], rows))
    print(limits.told("environment step", result["limit"]))
    return {"task": run.task["name"], "engine": run.engine["name"], **result}


def _imagine(cfg: BenchConfig, asked: Asked, composed: Callable[..., RunConfig], catalog: Catalog) -> dict[str, Any]:
    from dima_isaac.bench.imagine import bench_imagine

    first = composed()
    # the other preset without the first one's values: only what was typed beside the preset is shared
    runs = {first.preset: _resolved(first, catalog), cfg.against: _resolved(composed(f"preset={cfg.against}"), catalog)}
    if len(runs) < 2:
        raise UsageError(f"preset={first.preset} would be compared with itself; choose another with against=.")
    task = build.build_task(runs[first.preset])
    batch = None if isinstance(cfg.batch, str) else cfg.batch
    result = bench_imagine(runs, task, batch, cfg.horizon, cfg.repeats, cfg.seconds)
    rows = [
        [
            name,
            f"{result[name]['imagined_steps_per_s']:,.0f}",
            f"{result[name]['parameters']:,}",
            str(result[name]["reverse_steps"]),
            f"{result[name]['flops_per_step'] / 1e6:,.2f}",
            f"{result[name]['gflops_per_s']:.1f}",
        ]
        for name in runs
    ]
    print(table.text(["preset", "imagined steps/s", "parameters", "K", "MFLOP/step", "GFLOP/s"], rows))
    for name in runs:
        print(limits.told(f"{name}, dreamt step", result[name]["limit"]))
    for name in runs:
        if "captured_over_eager" in result[name]:
            plain, gain = result[name]["eager_steps_per_s"], result[name]["captured_over_eager"]
            print(f"{name}: captured dreams {gain:.2f} times as fast as eager ones ({plain:,.0f}/s)")
    print(f"{first.preset} / {cfg.against}: speed {result['ratio']:.1f}, operations 1 / {result['flops_ratio']:.1f}")
    return {"task": task.spec.name, "device": runs[first.preset].rl_device, **result}


def _train(cfg: BenchConfig, asked: Asked, composed: Callable[..., RunConfig], catalog: Catalog) -> dict[str, Any]:
    from dima_isaac.bench.train import bench_train, steady

    run = steady(_resolved(composed(), catalog))
    env = build.build_env(run, int(run.num_envs), run.seed)
    eval_env = build.build_env(run, 1, run.seed + 1_000_003)
    try:
        result = bench_train(run, env, eval_env, cfg.seconds, cfg.trace)
    finally:
        env.close()
        eval_env.close()
    rows = [[name, f"{100 * share:.1f} %"] for name, share in {**result["share"], "other": result["other"]}.items()]
    print(table.text(["part", "share of time"], rows))
    print(limits.told("environment step", result["limit"]))
    print(f"{result['env_steps_per_s']:.1f} environment steps/s, whole loop without evaluation and saving")
    facts = {"task": run.task["name"], "engine": run.engine["name"], "preset": run.preset, "num_envs": run.num_envs}
    return {**facts, **result}


def _mamujoco(cfg: BenchConfig, asked: Asked, composed: Callable[..., RunConfig], catalog: Catalog) -> dict[str, Any]:
    from dima_isaac.bench import mamujoco as suite

    chosen: dict[str, Any] = {}
    if cfg.task:
        if cfg.task not in suite.PARTITIONS:
            raise UsageError(f"suite=mamujoco has no {cfg.task}; choose one of {', '.join(suite.PARTITIONS)}.")
        chosen["tasks"] = [cfg.task]
    if isinstance(cfg.num_envs, int):
        chosen["sizes"] = [cfg.num_envs]
    result: dict[str, Any] = suite.bench_mamujoco(cfg.seconds, seed=cfg.seed, **chosen)
    return result


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else (f"{value:,.0f}" if value >= 100 else f"{value:.3f}")


_SUITES: dict[Suite, Callable[[BenchConfig, Asked, Callable[..., RunConfig], Catalog], dict[str, Any]]] = {
    Suite.engine: _engine,
    Suite.imagine: _imagine,
    Suite.train: _train,
    Suite.mamujoco: _mamujoco,
}
