"""Shake every two-handed task with random actions and report what breaks.

    python scripts/sanity.py                          2,000 control steps x 64 environments of every task
    python scripts/sanity.py ShadowHandPen --steps 200 --envs 16

Half of the environments get fresh uniform actions every step, half bang-bang ones held for five steps. Columns:
environment steps per second; environments found non-finite or too fast; contact buffers overflown; the fastest joint
(rad/s or m/s) and the fastest free prop (m/s), which an energy blow-up would show; how deep the centre of a free prop
was ever inside a table or below the ground (m); and how far a free prop moved in the first 30 control steps of idle
hands (m), which is little when it starts at rest on a support. Exits 1 when something broke.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a bare clone, before any install

import torch
from torch import Tensor

from dima_isaac import make
from dima_isaac.cli.main import guarded
from dima_isaac.run.catalog import Catalog
from dima_isaac.sim.scene import Box

FASTEST_PROP = 30.0  # m/s; a flick of a light cube reaches about ten
DEEPEST = 0.003  # m of a prop's centre inside a table or the ground
IDLE_STEPS = 30


def depth(props: Tensor, tables: list[tuple[Tensor, Tensor]]) -> Tensor:
    """How deep each centre of ``props`` (..., 3) is inside one of ``tables`` (centre, half extents) or the ground."""
    inside = -props[..., 2]
    for centre, half in tables:
        inside = torch.maximum(inside, (half - (props - centre).abs()).amin(-1))
    return inside


def shake(task: str, envs: int, steps: int, seed: int) -> tuple[str, bool]:
    """One row of the table, and whether the task is sound."""
    env = make(task, num_envs=envs, engine="mujoco", seed=seed, device="cpu")
    engine, dims, generator = env.engine, env.spec.dims, torch.Generator().manual_seed(seed)
    free = [p.actor.name for p in env.task.props if not (p.actor.fixed or p.actor.marker)]
    props = [engine.actor_names.index(name) for name in free]
    tables = [
        (torch.tensor(p.actor.pos), 0.5 * torch.tensor(p.actor.asset.size))
        for p in env.task.props
        if p.actor.fixed and isinstance(p.actor.asset, Box)
    ]
    shape = (envs, dims.agents, dims.action)
    env.reset()
    first = engine.root_state[:, props, :3].clone()
    for _ in range(IDLE_STEPS):
        env.step(torch.zeros(shape))
    drift = float((engine.root_state[:, props, :3] - first).norm(dim=-1).max()) if props else 0.0
    env.reset()
    fastest, flung, deepest, finite = torch.zeros(()), torch.zeros(()), torch.tensor(-1.0), True
    held = torch.zeros(shape)
    start = time.perf_counter()
    for step in range(steps):
        action = 2.0 * torch.rand(shape, generator=generator) - 1.0
        if step % 5 == 0:
            held = action.sign()
        action[: envs // 2] = held[: envs // 2]
        row = env.step(action)
        finite &= bool(torch.isfinite(row.state).all() & torch.isfinite(row.reward).all())
        fastest = torch.maximum(fastest, engine.dof_vel.abs().max())
        if props:
            things = engine.root_state[:, props]
            flung = torch.maximum(flung, things[..., 7:10].norm(dim=-1).max())
            deepest = torch.maximum(deepest, depth(things[..., :3], tables).max())
    rate = envs * steps / (time.perf_counter() - start)
    stats = {name: int(value) for name, value in engine.stats().items()}
    env.close()
    sound = finite and not any(stats.values()) and bool(flung < FASTEST_PROP) and bool(deepest < DEEPEST)
    cells = [f"{rate:.0f}", stats["nonfinite"], stats["contact_overflow"], f"{fastest:.0f}", f"{flung:.1f}"]
    cells += [f"{max(float(deepest), 0.0):.4f}", f"{drift:.4f}"] if props else ["-", "-"]
    return f"| {task} | " + " | ".join(map(str, cells)) + f" | {'yes' if sound else 'NO'} |", sound


def main() -> int:
    """Print the table; 1 if a task broke."""
    known = [name for name in Catalog().names("task") if name.startswith("ShadowHand")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=known)
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    columns = ("non-finite", "overflow", "fastest joint", "fastest prop", "inside support", "idle drift", "sound")
    print(f"| task | steps/s | {' | '.join(columns)} |\n{'|---' * (len(columns) + 2)}|")
    good = True
    for task in args.tasks:
        line, sound = shake(task, args.envs, args.steps, args.seed)
        print(line, flush=True)
        good &= sound
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(guarded(lambda _: main()))
