"""Multi-Agent MuJoCo's speed beside a loop over gymnasium-robotics' environments and EnvPool, where it is installed.

All variants of one case live in one process and take turns in short rounds; within a round they meet the same load
of the machine, so the ratios are medians of the rounds' ratios. Bare stepping replays the physics of our own round.
Every variant steps with uniform random actions, drawn outside the clock, and restarts fallen robots.
"""

import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dima_isaac import ranks
from dima_isaac.bench.config import BenchConfig
from dima_isaac.bench.engine import bench_engine
from dima_isaac.bench.timing import median_ratio
from dima_isaac.config import RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import UsageError
from dima_isaac.run.build import build_env_by_name

PARTITIONS = {"HalfCheetah": "6x1", "Ant": "4x2", "Walker2d": "2x3", "Humanoid": "9|8"}
SIZES = (64, 256)
_OURS, _BARE = "dima-isaac", "bare stepping"


@dataclass
class Variant:
    """One implementation of a case, with the range of its actions; ``play`` takes (T, E, ...) of them."""

    name: str
    low: np.ndarray
    high: np.ndarray
    play: Callable[[np.ndarray], None]
    close: Callable[[], None]


def suite(cfg: BenchConfig, resolved: Callable[..., RunConfig]) -> dict[str, Any]:
    """``suite=mamujoco``: measure every task and size, or the given ones, for about ``seconds`` in all.

    Returns per "task partition xN" ``env_steps_per_s`` of every variant and ``ratio`` of ours to each. Prints one line
    per case.

    Raises:
        UsageError: a task without a case here.
    """
    if cfg.task and cfg.task not in PARTITIONS:
        raise UsageError(f"suite=mamujoco has no {cfg.task}; choose one of {', '.join(PARTITIONS)}.")
    tasks = [cfg.task] if cfg.task else list(PARTITIONS)
    sizes = [cfg.num_envs] if isinstance(cfg.num_envs, int) else list(SIZES)
    cases: dict[str, Any] = {}
    for task in tasks:
        for size in sizes:
            name = f"{task} {PARTITIONS[task]} x{size}"
            case = cases[name] = _case(task, size, cfg.seconds / (len(tasks) * len(sizes)), cfg.seed)
            rates = ", ".join(f"{variant} {rate:,.0f}" for variant, rate in case["env_steps_per_s"].items())
            print(f"{name}: {rates} env-steps/s; ours / bare {case['ratio'][_BARE]:.2f}")
    return {"threads": ranks.cores(), "cases": cases}


def _case(task: str, size: int, seconds: float, seed: int) -> dict[str, Any]:
    env = build_env_by_name(task, size, "mujoco", seed, "cpu", {"agent_conf": PARTITIONS[task]})
    variants = [_ours(env), _robotics(task, size, seed)]
    if importlib.util.find_spec("envpool") is not None:
        variants.append(_envpool(task, size, seed))
    draws = np.random.default_rng(seed)
    try:
        rates: dict[str, list[float]] = {variant.name: [] for variant in variants}
        steps = {variant.name: 1 for variant in variants}
        seconds *= 0.8  # the rest is for bare stepping
        block = seconds / (3.0 * (len(variants) + 1))
        rounds = 0
        end = time.perf_counter() + seconds
        while rounds < 3 or time.perf_counter() < end:
            for variant in variants:
                shape = (steps[variant.name], size, *variant.low.shape)
                actions = draws.uniform(variant.low, variant.high, shape).astype(variant.low.dtype)
                started = time.perf_counter()
                variant.play(actions)
                spent = time.perf_counter() - started
                if rounds:  # the first round warms up and finds how many steps fill a block
                    rates[variant.name].append(steps[variant.name] * size / spent)
                else:
                    steps[variant.name] = max(1, min(200, round(min(block, 0.7) * steps[variant.name] / spent)))
            rounds += 1
        bare = bench_engine(env, seconds / 4.0)
    finally:
        for variant in variants:
            variant.close()
    ours = rates[_OURS]
    ratio = {name: median_ratio(ours, other) for name, other in rates.items() if name != _OURS}
    out = {name: statistics.median(rate) for name, rate in rates.items()}
    out[_BARE], ratio[_BARE] = bare["bare_steps_per_s"], bare["ratio"]
    return {"env_steps_per_s": out, "ratio": ratio, "rounds": rounds - 1}


def _ours(env: VecEnv) -> Variant:
    env.reset()
    one = np.ones((env.spec.dims.agents, env.spec.dims.action), dtype=np.float32)

    def play(actions: np.ndarray) -> None:
        for action in torch.from_numpy(actions):
            env.step(action)

    return Variant(_OURS, -one, one, play, env.close)


def _robotics(task: str, size: int, seed: int) -> Variant:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gymnasium_robotics import mamujoco_v1

        envs = [mamujoco_v1.parallel_env(task, PARTITIONS[task]) for _ in range(size)]
    for i, env in enumerate(envs):
        env.reset(seed=seed + i)
    boxes = {name: envs[0].action_space(name) for name in envs[0].possible_agents}
    ends = np.cumsum([box.shape[0] for box in boxes.values()])
    own = {name: slice(end - box.shape[0], end) for (name, box), end in zip(boxes.items(), ends, strict=True)}

    def play(actions: np.ndarray) -> None:
        for tick in actions:
            for env, action in zip(envs, tick, strict=True):
                env.step({name: action[part] for name, part in own.items()})
                if not env.agents:
                    env.reset()

    def close() -> None:
        for env in envs:
            env.close()

    low, high = (np.concatenate([getattr(box, end) for box in boxes.values()]) for end in ("low", "high"))
    return Variant("gymnasium-robotics loop", low, high, play, close)


def _envpool(task: str, size: int, seed: int) -> Variant:
    import envpool  # type: ignore[import-not-found]

    env = envpool.make_gymnasium(f"{task}-v5", num_envs=size, num_threads=ranks.cores(), seed=seed)
    env.reset()

    def play(actions: np.ndarray) -> None:
        for action in actions:
            env.step(action)

    return Variant("EnvPool", env.action_space.low, env.action_space.high, play, env.close)
