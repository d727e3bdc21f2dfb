"""A checkpoint's world model against the simulator on held-out episodes: open-loop error, sensitivity, and pushes."""

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from dima_isaac.envs.task import Task
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.tools import table
from dima_isaac.tools.restore import Restored
from dima_isaac.training import probes, pushes

DREAMS = 8  # whose mean is shown beside one dream


@dataclass
class Probe:
    """What was measured, and on which task."""

    task: Task
    loop: probes.OpenLoop
    sensitivity: probes.Sensitivity
    pushes: pushes.Pushes


def probe(restored: Restored, num_envs: int, seed: int) -> Probe:
    """Measure the world model of ``restored`` on ``num_envs`` environments that start as ``seed`` says."""
    with closing(restored.build_env(num_envs, seed + restored.cfg.seed)) as env:
        loop, world, act = open_loop(restored, env, seed), restored.world(env), restored.agent(env.task).act
        sensitivity = probes.sensitivity(world, env, act, 1)
        return Probe(env.task, loop, sensitivity, pushes.pushes(world, env, act, 1, seed))


def open_loop(restored: Restored, env: VecEnv, seed: int) -> probes.OpenLoop:
    """The first of the measurements."""
    horizon, world, act = probes.HORIZON, restored.world(env), restored.agent(env.task).act
    linear = probes.LinearModel(world, restored.replay(env.spec))
    held_out = probes.record(env, act, 1, max(2 * env.spec.episode_length, 3 * horizon), seed)
    return probes.open_loop(world, held_out, linear, horizon, dreams=DREAMS)


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
    print(table.text(["agent", "dreamt", "true", "dreamt / true"], rows))
    push = {name: value.tolist() for name, value in vars(found.pushes).items()}
    measured = zip(*(push[name] for name in ("reward", "reward_size", "place", "place_size")), strict=True)
    rows = [
        [str(steps), str(number), *(f"{value:.2f}" for value in values)]
        for steps, number, values in zip(pushes.HELD, push["number"], measured, strict=True)
    ]
    place = "z" if found.task.spec.object_columns is None else "object"
    print("\nwhat a push of 0.5 on one agent's actions changes, dreamt and true: correlation, and ratio of sizes")
    print(table.text(["steps held", "pushes", "reward", "ratio", place, "ratio"], rows) + "\n")
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
        "pushes": {"steps": pushes.HELD, **push},
    }
