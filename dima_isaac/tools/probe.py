"""A checkpoint's world model against the simulator on held-out episodes: open-loop error and action sensitivity."""

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from dima_isaac.envs.task import Task
from dima_isaac.tools import table
from dima_isaac.tools.restore import Restored
from dima_isaac.training import probes

DREAMS = 8  # whose mean is shown beside one dream


@dataclass
class Probe:
    """What was measured, and on which task."""

    task: Task
    loop: probes.OpenLoop
    sensitivity: probes.Sensitivity


def probe(restored: Restored, num_envs: int, seed: int) -> Probe:
    """Measure the world model of ``restored`` on ``num_envs`` environments that start as ``seed`` says."""
    horizon = probes.HORIZON
    with closing(restored.build_env(num_envs, seed + restored.cfg.seed)) as env:
        world, agent = restored.world(env), restored.agent(env.task)
        linear = probes.LinearModel(world, restored.replay(env.spec))
        held_out = probes.record(env, agent.act, 1, max(2 * env.spec.episode_length, 3 * horizon), seed)
        loop = probes.open_loop(world, held_out, linear, horizon, dreams=DREAMS)
        return Probe(env.task, loop, probes.sensitivity(world, env, agent.act, 1))


def report(found: Probe, restored: Restored) -> dict[str, Any]:
    """Print ``found`` as tables; returns it as plain values for the JSON line."""
    denoiser, loop = restored.cfg.world_model.denoiser, found.loop
    model, average, repeat, linear = (x.tolist() for x in (loop.model, loop.average, loop.repeat, loop.linear))
    below = [m < min(r, f) for m, r, f in zip(model, repeat, linear, strict=True)]
    columns = zip(model, average, repeat, linear, strict=True)
    rows = [
        [str(h + 1), *(f"{error:.4f}" for error in errors), "yes" if below[h] else "no"]
        for h, errors in enumerate(columns)
    ]
    print("\nopen-loop error, RMS over state dimensions in standard deviations, held-out episodes")
    head = ["step", "world model", f"mean of {DREAMS} dreams", "last state", "linear model", "below both"]
    print(table.text(head, rows))
    typical = loop.typical.tolist()
    rows = [[str(h + 1), *(f"{error:.4f}" for error in errors)] for h, errors in enumerate(zip(*typical, strict=True))]
    print("\nthe same for the median state dimension, in which rare contact forces weigh nothing")
    print(table.text(["step", "world model", "last state", "linear model"], rows))
    dreamt, true = found.sensitivity.dreamt.tolist(), found.sensitivity.true.tolist()
    rows = [
        [name, f"{d:.4f}", f"{t:.4f}", f"{d / t:.2f}" if t else "-"]
        for name, d, t in zip(found.task.spec.agent_names, dreamt, true, strict=True)
    ]
    print(
        f"\nhow far one agent's action moves the next state (reveal={denoiser.reveal.name}, |dz| for a change of 0.5)"
    )
    print(table.text(["agent", "dreamt", "true", "dreamt / true"], rows) + "\n")
    return {
        "horizon": len(model),
        "model": model,
        "average": average,
        "repeat": repeat,
        "linear": linear,
        "typical": dict(zip(("model", "repeat", "linear"), typical, strict=True)),
        "below_both": all(below),
        "reveal": denoiser.reveal.name,
        "order": denoiser.order.name,
        "sensitivity_dreamt": dreamt,
        "sensitivity_true": true,
    }
