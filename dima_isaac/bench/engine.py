"""How fast environments step, against the bare physics of the same model, side by side in one process.

The whole loop (actions in, observations, rewards and resets out) and bare physics on the same number of threads
alternate in short rounds. The bare part replays the very physics steps of the round before it: same states, same
controls, same resets. The ratio is the median of the rounds' ratios, which a busy machine moves little.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import torch

from dima_isaac.bench.config import BenchConfig
from dima_isaac.bench.timing import gpu_memory, median_ratio, synchronize
from dima_isaac.config import RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.run import build
from dima_isaac.tools import table


def suite(cfg: BenchConfig, resolved: Callable[..., RunConfig]) -> dict[str, Any]:
    """``suite=engine``: measure, print a table, and return the values for the JSON line."""
    run = resolved()
    with closing(build.build_env(run, int(run.num_envs), run.seed)) as env:
        result = bench_engine(env, cfg.seconds, seed=cfg.seed, at_least=cfg.env_steps)
    rows = [[name, _number(value)] for name, value in result.items() if isinstance(value, (int, float))]
    print(table.text(["engine " + run.engine["name"], run.task["name"]], rows))
    return {"task": run.task["name"], "engine": run.engine["name"], **result}


def bench_engine(
    env: VecEnv, seconds: float, steps: int = 20, sigma: float = 0.64, seed: int = 0, at_least: int = 0
) -> dict[str, Any]:
    """Alternate ``steps`` ticks of ``env`` with their bare physics for about ``seconds`` and ``at_least`` that many
    environment steps.

    Actions are N(0, sigma^2), clipped, and drawn outside the clock. Returns ``env_steps_per_s``,
    ``bare_steps_per_s`` and their ``ratio`` (None without the capability ``bare_physics``), and the engine's counters.
    """
    dims, engine = env.spec.dims, env.engine
    generator = torch.Generator(device=env.device).manual_seed(seed)
    shape = (steps, env.num_envs, dims.agents, dims.action)
    bare = engine.bare_physics() if engine.capabilities.bare_physics else None
    whole: list[float] = []
    physics: list[float] = []
    env.reset()
    rate = steps * env.num_envs
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(whole) < 3 or rate * len(whole) < at_least:
        actions = torch.randn(shape, generator=generator, device=env.device).mul_(sigma).clamp_(-1.0, 1.0)
        if bare is not None:
            bare.record()
        synchronize(env.engine.device)
        started = time.perf_counter()
        for action in actions:
            env.step(action)
        synchronize(env.engine.device)
        whole.append(time.perf_counter() - started)
        if bare is not None:
            physics.append(bare.replay())
    if bare is not None:
        bare.close()
    taken = gpu_memory(engine.device)
    return {
        "env_steps_per_s": rate / statistics.median(whole),
        "bare_steps_per_s": rate / statistics.median(physics) if physics else None,
        "ratio": median_ratio(physics, whole) if physics else None,
        "rounds": len(whole),
        "env_steps": rate * len(whole),
        "num_envs": env.num_envs,
        "substeps": engine.substeps,
        "stats": {name: int(value) for name, value in engine.stats().items()},
        "quarantined": int(env.quarantined),
        **({"memory": taken} if taken is not None else {}),
    }


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else (f"{value:,.0f}" if value >= 100 else f"{value:.3f}")
