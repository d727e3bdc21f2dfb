"""A checkpoint's world model against the simulator on held-out episodes: open-loop error, sensitivity, and pushes."""

from contextlib import closing
from typing import Any

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.tools import table
from dima_isaac.tools.restore import Restored
from dima_isaac.training import probes, pushes

DREAMS = 8  # whose mean is shown beside one dream


def open_loop(restored: Restored, env: VecEnv, seed: int) -> probes.OpenLoop:
    """The error of dreams of ``restored`` along new episodes of ``env``."""
    horizon, world, act = probes.HORIZON, restored.world(env), restored.agent(env.task).act
    linear = probes.LinearModel(world, restored.replay(env.spec))
    held_out = probes.record(env, act, 1, max(2 * env.spec.episode_length, 3 * horizon), seed)
    return probes.open_loop(world, held_out, linear, horizon, dreams=DREAMS)


def probe(restored: Restored, num_envs: int, seed: int) -> dict[str, Any]:
    """Measure on ``num_envs`` environments whose starts are drawn from ``seed``; print tables, return plain values."""
    with closing(restored.build_env(num_envs, seed)) as env:
        loop, spec = open_loop(restored, env, seed), env.spec
        if rewinds := env.engine.capabilities.rewinds:
            world, act = restored.world(env), restored.agent(env.task).act
            sensitivity = probes.sensitivity(world, env, act, 1)
            push = {name: value.tolist() for name, value in vars(pushes.pushes(world, env, act, 1, seed)).items()}
    denoiser = restored.cfg.world_model.denoiser
    errors = [error.tolist() for error in (loop.model, loop.average, loop.repeat, loop.linear)]
    below = [model < min(repeat, linear) for model, _, repeat, linear in zip(*errors, strict=True)]
    rows = [[*_cells(h + 1, values), "yes" if below[h] else "no"] for h, values in enumerate(zip(*errors, strict=True))]
    print("\nopen-loop error, RMS over state dimensions in standard deviations, held-out episodes")
    head = ["step", "world model", f"mean of {DREAMS} dreams", "last state", "linear model", "below both"]
    print(table.text(head, rows))
    typical = loop.typical.tolist()
    rows = [_cells(h + 1, values) for h, values in enumerate(zip(*typical, strict=True))]
    print("\nthe same for the median state dimension, in which rare contact forces weigh nothing")
    print(table.text(["step", "world model", "last state", "linear model"], rows))
    result = {
        "horizon": len(below),
        **dict(zip(("model", "average", "repeat", "linear"), errors, strict=True)),
        "typical": dict(zip(("model", "repeat", "linear"), typical, strict=True)),
        "below_both": all(below),
        "reveal": denoiser.reveal.name,
        "order": denoiser.order.name,
    }
    if not rewinds:
        print("\nother actions cannot be tried from one state: the environments of this task do not go back to one.\n")
        return result
    dreamt, true = sensitivity.dreamt.tolist(), sensitivity.true.tolist()
    rows = [
        [*_cells(name, (d, t)), f"{d / t:.2f}" if t else "-"]
        for name, d, t in zip(spec.agent_names, dreamt, true, strict=True)
    ]
    print(
        f"\nhow far one agent's action moves the next state (reveal={denoiser.reveal.name}, |dz| for a change of 0.5)"
    )
    print(table.text(["agent", "dreamt", "true", "dreamt / true"], rows))
    columns = zip(
        *(push[name] for name in ("held", "number", "reward", "reward_size", "place", "place_size")), strict=True
    )
    rows = [[str(steps), str(number), *(f"{value:.2f}" for value in values)] for steps, number, *values in columns]
    place = "z" if spec.object_columns is None else "object"
    print("\nwhat a push of 0.5 on one agent's actions changes, dreamt and true: correlation, and ratio of sizes")
    print(table.text(["steps held", "pushes", "reward", "ratio", place, "ratio"], rows) + "\n")
    return {
        **result,
        "sensitivity_dreamt": dreamt,
        "sensitivity_true": true,
        "pushes": {"steps": push.pop("held"), **push},
    }


def _cells(name: object, values: tuple[float, ...]) -> list[str]:
    return [str(name), *(f"{value:.4f}" for value in values)]
