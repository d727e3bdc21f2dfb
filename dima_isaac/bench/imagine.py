"""How fast two presets dream, side by side in one process: same task, batch, horizon and machine.

Rounds alternate, so that both meet the same load; the ratio is the median of the rounds' ratios. An imagined step is
all that a policy's rollout needs of it: K denoiser calls, observations, the policy, and its share of the prediction of
reward and continuation. Operations are counted, not estimated: every matrix product, convolution and attention of one
dream.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dima_isaac.agent.learner import build_learner
from dima_isaac.bench.config import BenchConfig
from dima_isaac.bench.timing import gpu_memory, median_ratio, product_rate, synchronize
from dima_isaac.config import RunConfig
from dima_isaac.envs.task import Task
from dima_isaac.errors import UsageError
from dima_isaac.nn.captured import WARM, Captured
from dima_isaac.run import build
from dima_isaac.tools import table
from dima_isaac.types import Step, Window
from dima_isaac.world_model.imagine import imagine
from dima_isaac.world_model.world_model import WorldModel

BATCH = 600  # dreams per rollout, as published
_TRIAL = 16
_FEW = 4  # dreams in which operations are counted: they are proportional to the batch


def suite(cfg: BenchConfig, resolved: Callable[..., RunConfig]) -> dict[str, Any]:
    """``suite=imagine``: measure, print a table, and return the values for the JSON line.

    Raises:
        UsageError: ``against`` names the run's own preset.
    """
    first = resolved()
    # the other preset without the first one's values: only what was typed beside the preset is shared
    runs = {first.preset: first, cfg.against: resolved(f"preset={cfg.against}")}
    if len(runs) < 2:
        raise UsageError(f"preset={first.preset} would be compared with itself; choose another with against=.")
    task = build.build_task(first)
    batch = None if isinstance(cfg.batch, str) else cfg.batch
    result = bench_imagine(runs, task, batch, cfg.horizon, cfg.repeats, cfg.seconds)
    rows = []
    for name in runs:
        r = result[name]
        speed, sizes = f"{r['imagined_steps_per_s']:,.0f}", [f"{r['parameters']:,}", str(r["reverse_steps"])]
        rows.append([name, speed, *sizes, f"{r['flops_per_step'] / 1e6:,.2f}", f"{r['gflops_per_s']:.1f}"])
    print(table.text(["preset", "imagined steps/s", "parameters", "K", "MFLOP/step", "GFLOP/s"], rows))
    for name in runs:
        if "captured_over_eager" in result[name]:
            eager, gain = result[name]["eager_steps_per_s"], result[name]["captured_over_eager"]
            print(f"{name}: captured dreams {gain:.2f} times as fast as eager ones ({eager:,.0f}/s)")
    print(f"{first.preset} / {cfg.against}: speed {result['ratio']:.1f}, operations 1 / {result['flops_ratio']:.1f}")
    return {"task": task.spec.name, "device": first.rl_device, **result}


class Dreaming:
    """The untrained world model and policy of one configuration, with something to dream from."""

    def __init__(self, cfg: RunConfig, task: Task, batch: int) -> None:
        dims, device = task.spec.dims, torch.device(cfg.rl_device)
        torch.manual_seed(cfg.seed)
        self.device = device
        self.world = WorldModel(cfg.world_model, task, device).eval()
        self.agent = build_learner(cfg.agent, task, device, seed=cfg.seed)
        length = max(self.world.history, self.world.window)
        state = torch.randn(batch, length, dims.state, device=device)
        action = torch.randn(batch, length, dims.agents, dims.action, device=device).clamp(-1.0, 1.0)
        truth = torch.ones(batch, length, dtype=torch.bool, device=device)
        self.world.track(state)
        rows = truth[:, -1]
        newest = state[:, -1]
        self.agent.track(Step(newest, task.observe(newest), torch.zeros(batch, device=device), ~rows, ~rows, ~rows))
        window = Window(state, action, torch.zeros(batch, length, device=device), ~truth, ~truth, truth, ~truth)
        with torch.enable_grad():  # one small update, so that every running scale has seen something
            self.world.update_dynamics(_first(window.rows(-self.world.window, None), _FEW))
        self.start = window.rows(-self.world.history, None)

    def captured(self, horizon: int) -> Captured:
        """Dreams of ``horizon`` steps as a run with ``compile`` has them."""
        draws = (self.world.generator, self.agent.generator)
        return Captured(lambda start: imagine(self.world, self.agent.act, start, horizon), lambda: draws)

    def dream(self, horizon: int, batch: int, captured: Captured | None = None) -> float:
        """Seconds for one dream of ``batch`` starts."""
        start = _first(self.start, batch)
        synchronize(self.device)
        began = time.perf_counter()
        if captured is None:
            imagine(self.world, self.agent.act, start, horizon)
        else:
            captured(start)
        synchronize(self.device)
        return time.perf_counter() - began

    def flops(self, horizon: int) -> float:
        """Floating-point operations (a multiply-add is two) of one imagined step of one dream."""
        few = min(_FEW, self.start.state.shape[0])
        # attention as plain matrix products, which the counter knows on every device
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self.dream(horizon, few)
        return counter.get_total_flops() / (few * horizon)

    def parameters(self) -> dict[str, int]:
        """Of every part that takes part in a dream."""
        parts: dict[str, nn.Module | None] = {
            "denoiser": self.world.denoiser,
            "reward": self.world.reward,
            "decoder": self.world.decoder,
            "actor": self.agent.actor,
        }
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items() if part is not None}


def _first(window: Window, batch: int) -> Window:
    return Window(*(column[:batch] for column in vars(window).values()))


def bench_imagine(
    cfgs: dict[str, RunConfig], task: Task, batch: int | None, horizon: int, repeats: int, seconds: float
) -> dict[str, Any]:
    """Dream alternately under each of two configurations, at least ``repeats`` times and for about ``seconds``.

    Without a ``batch`` it is the published 600, or as many dreams as let ``repeats`` rounds fit into ``seconds``. With
    ``compile`` dreams are captured, as in a run, and each round has an eager one beside them.

    Returns for each name ``imagined_steps_per_s`` (median), ``parameters``, ``flops_per_step`` and ``gflops_per_s``,
    with ``compile`` also ``eager_steps_per_s`` and ``captured_over_eager``, on a GPU ``share_of_bf16`` of its measured
    product rate and ``memory``; and ``ratio``, the first configuration's speed over the second's.
    """
    with torch.no_grad():
        dreaming = {name: Dreaming(cfg, task, batch or BATCH) for name, cfg in cfgs.items()}
        flops = {name: one.flops(horizon) for name, one in dreaming.items()}
        for one in dreaming.values():
            one.dream(2, _TRIAL)  # first calls allocate and choose kernels
        if batch is None:
            trial = sum(one.dream(2, _TRIAL) for one in dreaming.values()) / (2 * _TRIAL)
            batch = min(BATCH, max(_TRIAL, int(seconds / (repeats * horizon * trial))))
            if batch < BATCH:
                print(f"batch {batch} instead of {BATCH}, to make {repeats} rounds in about {seconds:g} s")
        captured = {name: one.captured(horizon) for name, one in dreaming.items() if cfgs[name].compile is True}
        for name, graph in captured.items():
            for _ in range(WARM + 1):
                dreaming[name].dream(horizon, batch, graph)
        times: dict[str, list[float]] = {name: [] for name in cfgs}
        eager: dict[str, list[float]] = {name: [] for name in captured}
        rounds, end = 0, time.perf_counter() + seconds
        while rounds < repeats or time.perf_counter() < end:
            for name, one in dreaming.items():
                times[name].append(one.dream(horizon, batch, captured.get(name)))
                if name in captured:
                    eager[name].append(one.dream(horizon, batch))
            rounds += 1
            last = "   ".join(f"{name} {batch * horizon / spent[-1]:,.0f}/s" for name, spent in times.items())
            print(f"round {rounds}: {last}")
    out: dict[str, Any] = {"batch": batch, "horizon": horizon, "rounds": rounds}
    for name, spent in times.items():
        out[name] = _result(cfgs[name], dreaming[name], spent, flops[name], batch, horizon)
        if name in eager:
            out[name]["eager_steps_per_s"] = batch * horizon / statistics.median(eager[name])
            out[name]["captured_over_eager"] = median_ratio(eager[name], spent)
    (first, second), (fewer, more) = times.values(), flops.values()
    return {**out, "ratio": median_ratio(second, first), "flops_ratio": more / fewer}


def _result(
    cfg: RunConfig, dreaming: Dreaming, spent: list[float], flops: float, batch: int, horizon: int
) -> dict[str, Any]:
    """What is reported of one configuration, whose rounds took ``spent`` seconds each."""
    rate = batch * horizon / statistics.median(spent)
    sizes = dreaming.parameters()
    out = {
        "imagined_steps_per_s": rate,
        "best": batch * horizon / min(spent),
        "parameters": sum(sizes.values()),
        "parts": sizes,
        "reverse_steps": dreaming.world.steps,
        "precision": cfg.world_model.precision.name,
        "flops_per_step": flops,
        "gflops_per_s": rate * flops / 1e9,
    }
    if dreaming.device.type == "cuda":
        share = rate * flops / product_rate(dreaming.device, torch.bfloat16)
        out |= {"share_of_bf16": share, "memory": gpu_memory(dreaming.device)}
    return out
