"""How fast two presets dream, side by side in one process: same task, batch, horizon and machine.

Rounds alternate, so that both meet the same load; the ratio is the median of the rounds' ratios. A dreamt step is
all that a policy's rollout needs of it: K denoiser calls, observations, the policy, and its share of judging reward and
continuation. Operations are counted, not estimated: every matrix product, convolution and attention of one dream.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dima_isaac.agent.ppo import ActorCritic
from dima_isaac.bench.roofline import bound, measure, report, weight_bytes
from dima_isaac.bench.timing import memory, wait
from dima_isaac.config import RunConfig
from dima_isaac.envs.task import Task
from dima_isaac.nn.captured import WARM, Captured
from dima_isaac.types import Window
from dima_isaac.world_model.config import Precision
from dima_isaac.world_model.imagine import imagine
from dima_isaac.world_model.world_model import WorldModel

BATCH = 600  # dreams per rollout, as published
_TRIAL = 16
_FEW = 4  # dreams in which operations are counted: they are proportional to the batch


class Dreamer:
    """The untrained world model and policy of one configuration, with something to dream from."""

    def __init__(self, cfg: RunConfig, task: Task, batch: int) -> None:
        spec, dims, device = task.spec, task.spec.dims, torch.device(cfg.rl_device)
        torch.manual_seed(cfg.seed)
        self.device = device
        self.world = (
            WorldModel(cfg.world_model, dims, task.observe, spec.last_action_index, spec.output_only).to(device).eval()
        )
        self.agent = ActorCritic(cfg.agent, dims, device, spec.action_mask, cfg.seed)
        length = max(self.world.history, self.world.window)
        state = torch.randn(batch, length, dims.state, device=device)
        action = torch.randn(batch, length, dims.agents, dims.action, device=device).clamp(-1.0, 1.0)
        truth = torch.ones(batch, length, dtype=torch.bool, device=device)
        self.world.track(state)
        self.agent.track(task.observe(state[:, -1]))
        window = Window(state, action, torch.zeros(batch, length, device=device), ~truth, ~truth, truth)
        with torch.enable_grad():  # one small update, so that every running scale has seen something
            self.world.update_dynamics(Window(**{n: v[:_FEW, -self.world.window :] for n, v in vars(window).items()}))
        self.start = Window(**{name: value[:, -self.world.history :] for name, value in vars(window).items()})

    def captured(self, horizon: int) -> Captured:
        """Dreams of ``horizon`` steps as a run with ``compile`` has them."""
        draws = (self.world.generator, self.agent.generator)
        return Captured(lambda start: imagine(self.world, self.agent.act, start, horizon), lambda: draws)

    def dream(self, horizon: int, batch: int, captured: Captured | None = None) -> float:
        """Seconds for one dream of ``batch`` starts."""
        start = Window(**{name: value[:batch] for name, value in vars(self.start).items()})
        wait(self.device)
        began = time.perf_counter()
        if captured is None:
            imagine(self.world, self.agent.act, start, horizon)
        else:
            captured(start)
        wait(self.device)
        return time.perf_counter() - began

    def flops(self, horizon: int) -> float:
        """Floating-point operations (a multiply-add is two) of one dreamt step of one dream."""
        few = min(_FEW, self.start.state.shape[0])
        # attention as plain matrix products, which the counter knows on every device
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self.dream(horizon, few)
        return counter.get_total_flops() / (few * horizon)

    def bytes(self, horizon: int, batch: int) -> float:
        """Bytes that one dreamt step of one of ``batch`` dreams moves at the least.

        Every network's weights once per call, shared by the batch (the denoiser is called K times a step, the reward
        model once a dream); the history, the state, the observations and the actions read or written once.
        """
        world, dims = self.world, self.world.dims
        calls: float = self.world.steps * weight_bytes(world.dreamer) + weight_bytes(self.agent.actor)
        calls += weight_bytes(world.decoder)
        calls += weight_bytes(world.reward) / horizon
        own = world.history * (2 * dims.state + dims.agents * dims.action) + dims.agents * dims.obs
        return calls / batch + 4.0 * own

    def parameters(self) -> dict[str, int]:
        """Of every part that takes part in a dream."""
        parts: dict[str, nn.Module | None] = {
            "denoiser": self.world.denoiser,
            "reward": self.world.reward,
            "decoder": self.world.decoder,
            "actor": self.agent.actor,
        }
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items() if part is not None}


def bench_imagine(
    cfgs: dict[str, RunConfig],
    task: Task,
    batch: int | None,
    horizon: int,
    repeats: int,
    seconds: float,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Dream alternately under each configuration, at least ``repeats`` times and for about ``seconds``.

    Without a ``batch`` it is the published 600, or as many dreams as let ``repeats`` rounds fit into ``seconds``.

    With ``compile`` dreams are captured, as in a run, and each round has an eager one beside them.

    Returns for each name ``imagined_steps_per_s`` (median), ``parameters``, ``flops_per_step`` and
    ``gflops_per_s`` and ``limit`` (``limits.Bound``), with ``compile`` also ``eager_steps_per_s`` and
    ``captured_over_eager``, on a GPU ``share_of_bf16`` of its measured product rate and ``memory``; and ``ratio``, the
    first configuration's speed over the second's.
    """
    with torch.no_grad():
        dreamers = {name: Dreamer(cfg, task, batch or BATCH) for name, cfg in cfgs.items()}
        flops = {name: one.flops(horizon) for name, one in dreamers.items()}
        for one in dreamers.values():
            one.dream(2, _TRIAL)  # first calls allocate and choose kernels
        if batch is None:
            trial = sum(one.dream(2, _TRIAL) for one in dreamers.values()) / (2 * _TRIAL)
            fits = int(seconds / (repeats * horizon * trial))
            batch = min(BATCH, max(_TRIAL, fits))
            if batch < BATCH:
                say(f"batch {batch} instead of {BATCH}, to make {repeats} rounds in about {seconds:g} s")
        played = {name: one.captured(horizon) for name, one in dreamers.items() if cfgs[name].compile is True}
        for name, captured in played.items():
            for _ in range(WARM + 1):
                dreamers[name].dream(horizon, batch, captured)
        times: dict[str, list[float]] = {name: [] for name in cfgs}
        eager: dict[str, list[float]] = {name: [] for name in played}
        end = time.perf_counter() + seconds
        while len(next(iter(times.values()))) < repeats or time.perf_counter() < end:
            for name, one in dreamers.items():
                times[name].append(one.dream(horizon, batch, played.get(name)))
                if name in played:
                    eager[name].append(one.dream(horizon, batch))
            last = "   ".join(f"{name} {batch * horizon / spent[-1]:,.0f}/s" for name, spent in times.items())
            say(f"round {len(times[name])}: {last}")
    steps = batch * horizon
    out: dict[str, Any] = {"batch": batch, "horizon": horizon, "rounds": len(times[name])}
    bf16 = {name: cfg.world_model.precision is Precision.bf16 for name, cfg in cfgs.items()}
    limits = {
        name: measure(one.device, torch.bfloat16 if bf16[name] else torch.float32) for name, one in dreamers.items()
    }
    gpus = {one.device for one in dreamers.values() if one.device.type == "cuda"}
    bf16_rate = {device: measure(device, torch.bfloat16).flops_per_s for device in gpus}
    for name, spent in times.items():
        rate = steps / statistics.median(spent)
        sizes = dreamers[name].parameters()
        out[name] = {
            "imagined_steps_per_s": rate,
            "best": steps / min(spent),
            "parameters": sum(sizes.values()),
            "parts": sizes,
            "reverse_steps": dreamers[name].world.steps,
            "precision": cfgs[name].world_model.precision.name,
            "flops_per_step": flops[name],
            "gflops_per_s": rate * flops[name] / 1e9,
            "limit": report(limits[name], bound(limits[name], rate, flops[name], dreamers[name].bytes(horizon, batch))),
        }
        if dreamers[name].device in bf16_rate:
            out[name]["share_of_bf16"] = rate * flops[name] / bf16_rate[dreamers[name].device]
            out[name]["memory"] = memory(dreamers[name].device)
        if name in eager:
            out[name]["eager_steps_per_s"] = steps / statistics.median(eager[name])
            pairs = zip(spent, eager[name], strict=True)
            out[name]["captured_over_eager"] = statistics.median(plain / fast for fast, plain in pairs)
    if len(cfgs) == 2:
        first, second = times.values()
        out["ratio"] = statistics.median(b / a for a, b in zip(first, second, strict=True))
        fewer, more = (flops[name] for name in cfgs)
        out["flops_ratio"] = more / fewer
    return out
