"""How fast two presets dream, side by side in one process: same task, batch, horizon and machine.

Rounds alternate, so that both meet the same load; the ratio is the median of the rounds' ratios. An imagined step is
all that a policy's rollout needs of it: K denoiser calls, observations, the policy, and its share of the prediction of
reward and continuation. Operations are counted, not estimated: every matrix product, convolution and attention of one
dream.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
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
from dima_isaac.types import Rollout, Step, Window
from dima_isaac.world_model.imagine import imagine
from dima_isaac.world_model.world_model import WorldModel

BATCH = 600  # dreams per rollout, as published
_TRIAL = 16
_FEW = 4  # dreams in which operations are counted: they are proportional to the batch


@torch.no_grad()
def suite(cfg: BenchConfig, resolved: Callable[..., RunConfig]) -> dict[str, Any]:
    """``suite=imagine``: dream alternately under each preset, at least ``repeats`` times and for about ``seconds``.

    With ``batch=auto`` it is the published 600, or as many dreams as let ``repeats`` rounds fit into ``seconds``. With
    ``compile`` dreams are captured, as in a run.

    Prints a table. Returns for each preset ``imagined_steps_per_s`` (median), ``parameters``, ``flops_per_step`` and
    ``gflops_per_s``, on a GPU ``share_of_bf16`` of its measured product rate and ``memory``; and ``ratio``, the first
    preset's speed over the second's.

    Raises:
        UsageError: ``against`` names the run's own preset.
    """
    first = resolved()
    # the other preset without the first one's values: only what was typed beside the preset is shared
    runs = {first.preset: first, cfg.against: resolved(f"preset={cfg.against}")}
    if len(runs) < 2:
        raise UsageError(f"preset={first.preset} would be compared with itself; choose another with against=.")
    task, horizon = build.build_task(first), cfg.horizon
    batch = BATCH if isinstance(cfg.batch, str) else cfg.batch
    dreaming = {name: Dreaming(run, task, batch) for name, run in runs.items()}
    flops = {name: one.flops(horizon) for name, one in dreaming.items()}
    for one in dreaming.values():
        one.seconds(2, _TRIAL)  # first calls allocate and choose kernels
    if isinstance(cfg.batch, str):
        trial = sum(one.seconds(2, _TRIAL) for one in dreaming.values()) / (2 * _TRIAL)
        batch = min(BATCH, max(_TRIAL, int(cfg.seconds / (cfg.repeats * horizon * trial))))
        if batch < BATCH:
            print(f"batch {batch} instead of {BATCH}, to make {cfg.repeats} rounds in about {cfg.seconds:g} s")
    for name, one in dreaming.items():
        if runs[name].compile is True:
            one.capture()
            for _ in range(WARM + 1):
                one.seconds(horizon, batch)
    times: dict[str, list[float]] = {name: [] for name in runs}
    rounds, end = 0, time.perf_counter() + cfg.seconds
    while rounds < cfg.repeats or time.perf_counter() < end:
        for name, one in dreaming.items():
            times[name].append(one.seconds(horizon, batch))
        rounds += 1
        last = "   ".join(f"{name} {batch * horizon / spent[-1]:,.0f}/s" for name, spent in times.items())
        print(f"round {rounds}: {last}")
    rates = {name: batch * horizon / statistics.median(spent) for name, spent in times.items()}
    result = {name: one.figures(rates[name], flops[name]) for name, one in dreaming.items()}
    rows = []
    for name, r in result.items():
        counts = [f"{r[key]:,.0f}" for key in ("imagined_steps_per_s", "parameters", "reverse_steps")]
        rows.append([name, *counts, f"{r['flops_per_step'] / 1e6:,.2f}", f"{r['gflops_per_s']:.1f}"])
    print(table.text(["preset", "imagined steps/s", "parameters", "K", "MFLOP/step", "GFLOP/s"], rows))
    ratio, more = median_ratio(times[cfg.against], times[first.preset]), flops[cfg.against] / flops[first.preset]
    print(f"{first.preset} / {cfg.against}: speed {ratio:.1f}, operations 1 / {more:.1f}")
    facts = {"task": task.spec.name, "device": first.rl_device, "batch": batch, "horizon": horizon, "rounds": rounds}
    return {**facts, **result, "ratio": ratio, "flops_ratio": more}


class Dreaming:
    """The untrained world model and policy of one configuration, with something to dream from."""

    def __init__(self, cfg: RunConfig, task: Task, batch: int) -> None:
        dims, device = task.spec.dims, torch.device(cfg.rl_device)
        torch.manual_seed(cfg.seed)
        self.device = device
        self.world = WorldModel(cfg.world_model, task, device).eval()
        self.agent = build_learner(cfg.agent, task, device, seed=cfg.seed)
        self.dream: Callable[[Window, int], Rollout] = partial(imagine, self.world, self.agent.act)
        length = max(self.world.history, self.world.window)
        state = torch.randn(batch, length, dims.state, device=device)
        action = torch.randn(batch, length, dims.agents, dims.action, device=device).clamp(-1.0, 1.0)
        truth = torch.ones(batch, length, dtype=torch.bool, device=device)
        self.world.track(state)
        rows = truth[:, -1]
        newest = state[:, -1]
        self.agent.track(Step(newest, task.observe(newest), torch.zeros(batch, device=device), ~rows, ~rows, ~rows))
        window = Window(state, action, torch.zeros(batch, length, device=device), ~truth, truth, ~truth)
        with torch.enable_grad():  # one small update, so that every running scale has seen something
            self.world.update_dynamics(_first(window.rows(-self.world.window, None), _FEW))
        self.start = window.rows(-self.world.history, None)

    def capture(self) -> None:
        """From now on play dreams as a graph, all of them of one length, as a run with ``compile`` does."""
        self.dream = Captured(self.dream, lambda: (self.world.generator, self.agent.generator))

    def seconds(self, horizon: int, batch: int) -> float:
        """How long one dream of ``batch`` starts takes."""
        start = _first(self.start, batch)
        synchronize(self.device)
        began = time.perf_counter()
        self.dream(start, horizon)
        synchronize(self.device)
        return time.perf_counter() - began

    def flops(self, horizon: int) -> float:
        """Floating-point operations (a multiply-add is two) of one imagined step of one dream."""
        start = _first(self.start, _FEW)
        # attention as plain matrix products, which the counter supports on every device
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self.dream(start, horizon)
        return counter.get_total_flops() / (start.state.shape[0] * horizon)

    def figures(self, rate: float, flops: float) -> dict[str, Any]:
        """What is reported, at ``rate`` imagined steps/s with ``flops`` operations each."""
        world = self.world
        parts = (part for part in (world.denoiser, world.reward, world.decoder, self.agent.actor) if part is not None)
        out: dict[str, Any] = {
            "imagined_steps_per_s": rate,
            "parameters": sum(parameter.numel() for part in parts for parameter in part.parameters()),
            "reverse_steps": world.steps,
            "flops_per_step": flops,
            "gflops_per_s": rate * flops / 1e9,
        }
        if self.device.type == "cuda":
            out["share_of_bf16"] = rate * flops / product_rate(self.device, torch.bfloat16)
            out["memory"] = gpu_memory(self.device)
        return out


def _first(window: Window, batch: int) -> Window:
    return Window(*(column[:batch] for column in vars(window).values()))
