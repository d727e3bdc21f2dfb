"""What diffusion buys over a regression: networks of one size, fitted to one replay, compared on unseen episodes.

    python scripts/study_diffusion.py RUN [--updates 5000] [--envs 32] [--seed 0]

Three world models learn from the same windows of the run's replay with the run's own settings: ``regression`` predicts
y by least squares, given all actions; ``joint`` is a diffusion model that sees all actions in each of its K steps;
``cumulative`` sees them agent by agent. The policy of the run then plays in environments that start elsewhere. Each
model predicts those episodes under the recorded actions, 1, 5 and 15 steps ahead (errors in standard deviations,
skill as in world_model/dream_skill.py), and random pushes of one agent (training/pushes.py). ``+ errors``: shrunk, and
with held-out errors of size 1, as dreams have them. CRPS is the continuous ranked probability score of 8 dreams, mean
over dimensions: smaller is better, and it rewards an honest spread.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a bare clone, before any install

import torch

from dima_isaac.cli.main import guarded
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.run.catalog import Catalog
from dima_isaac.tools import table
from dima_isaac.tools.config import EvaluateConfig
from dima_isaac.tools.restore import Restored, restore
from dima_isaac.training import probes, pushes
from dima_isaac.world_model.config import Reveal
from dima_isaac.world_model.dream_skill import HORIZONS, DreamSkill
from dima_isaac.world_model.world_model import WorldModel

DREAMS = 8
WINDOWS, TICKS = 2048, 400  # of unseen episodes


def world_models(restored: Restored, env: VecEnv) -> dict[str, WorldModel]:
    """The three, before any update, with equal first weights."""
    models = {}
    for name, steps, reveal in (
        ("regression", 1, Reveal.joint),
        ("joint", 0, Reveal.joint),
        ("cumulative", 0, Reveal.cumulative),
    ):
        cfg = restored.cfg.world_model
        chosen = replace(cfg.denoiser, steps=steps, reveal=reveal)
        torch.manual_seed(0)
        models[name] = WorldModel(replace(cfg, denoiser=chosen, error_scale=1.0), env.task, restored.device)
    return models


def fit(world: WorldModel, replay: ReplayBuffer, restored: Restored, updates: int) -> None:
    """``updates`` of the denoiser and of the reward model."""
    learn, generator = restored.cfg.train.learn, torch.Generator(restored.device).manual_seed(1)
    world.track(replay.state[: replay.size].flatten(0, 1))
    for _ in range(updates):
        world.update_dynamics(replay.sample(learn.dynamics_batch, world.window, generator))
        world.update_reward(replay.sample(learn.reward_batch, world.reward_window, generator))
    world.eval()


@torch.no_grad()
def errors(world: WorldModel, kept: ReplayBuffer, add: bool) -> list[float]:
    """Error of one dream and CRPS after each of ``HORIZONS`` steps, with or without held-out errors."""
    h, generator, out = world.history, torch.Generator(kept.device).manual_seed(2), []
    counted = world.target.denoised() > 0
    for steps in HORIZONS:
        window = kept.sample(WINDOWS, h + steps, generator)
        whole = window.valid.all(1)
        context, dreams = world.context(window.rows(0, h)), []
        for _ in range(DREAMS):
            now = context
            for action in window.action[:, h - 1 : -1].unbind(1):
                now = world.step(now, action, generator, errors=add)
            dreams.append(world.target.z(now.state)[whole][:, counted])
        true, drawn = world.target.z(window.state[:, -1])[whole][:, counted], torch.stack(dreams)
        spread = (drawn.unsqueeze(0) - drawn.unsqueeze(1)).abs().sum((0, 1)) / (2 * DREAMS * (DREAMS - 1))
        crps = (drawn - true).abs().mean(0) - spread
        out += [float((drawn[0] - true).square().mean().sqrt()), float(crps.mean())]
    return out


def skill(world: WorldModel, kept: ReplayBuffer) -> list[float]:
    """Of reward and of survival, after each of ``HORIZONS`` steps."""
    found, generator = DreamSkill(kept.device), torch.Generator(kept.device).manual_seed(3)
    found.update(world, [kept.sample(WINDOWS, world.history + h, generator) for h in HORIZONS])
    return torch.where(found.spread > 1e-9, 1.0 - found.error / found.spread, torch.nan).flatten().tolist()


def compare(run: str, updates: int, envs: int, seed: int) -> list[list[str]]:
    """The table's rows."""
    restored = restore(EvaluateConfig(checkpoint=run, threads="1"), Catalog())
    env = restored.build_env(envs, seed)
    act, replay = restored.agent(env.task).act, restored.replay(env.spec)
    ticks = min(2 * env.spec.episode_length, TICKS)
    before, kept = (probes.record(env, act, n, ticks, seed + n) for n in (1, 5))
    out = []
    for name, world in world_models(restored, env).items():
        fit(world, replay, restored, updates)
        pushed = pushes.pushes(world, env, act, 9, seed)
        figures = [*skill(world, kept), *pushed.reward.tolist(), *pushed.place.tolist()]
        out.append([name, *(f"{x:.3f}" for x in (*errors(world, kept, False), *figures))])
        world.update_held_out(before.sample(4096, world.history + 1))
        out.append([f"{name} + errors", *(f"{x:.3f}" for x in errors(world, kept, True)), *[""] * len(figures)])
    return out


def main(words: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder, a .pt file, or latest")
    parser.add_argument("--updates", type=int, default=5000)
    parser.add_argument("--envs", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    head = [f"{kind} {h}" for h in HORIZONS for kind in ("error", "CRPS")]
    head += [f"{kind} {h}" for kind in ("reward", "survival") for h in HORIZONS]
    head += [f"push {kind} {held}" for kind in ("reward", "place") for held in pushes.HELD]
    columns = list(zip(["model", *head], *compare(args.run, args.updates, args.envs, args.seed), strict=True))
    print(table.text(columns[0], columns[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
