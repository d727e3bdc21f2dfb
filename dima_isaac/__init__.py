"""A diffusion-inspired multi-agent world model, and policies that learn inside its dreams.

``from dima_isaac import make, train, load_policy`` (docs/python.md); ``dima_isaac.cli.main`` is the command line.
Importing the package imports neither torch nor a physics engine.

A map of the code. A line may import those above it (``config.py`` also every package's ``config.py``);
``tests/test_layers.py`` holds who may import whom exactly. ``world_model`` and ``agent`` do not know each other, and
nothing imports a task.

    types.py                     the letters of the axes; Step, Window, Rollout: the tensors that cross packages
    errors.py                    what a user can mend, with its exit code
    schema.py                    dataclasses as schemas: types and ranges of settings
    ranks.py                     several processes that train one run: sums and means over them, what all agree on

    sim/                         physics: E copies of a scene as tensors, without rewards
    sim/engine.py                the contract of an engine: views, staged writes, units, frames
    sim/scene.py                 what is simulated, in words that every engine understands
    sim/compiled.py              the scene's physics model, and where its names are in it
    sim/base.py                  what the engines share: names, limits, checks, pictures
    sim/mujoco/                  MuJoCo on the CPU's cores
    sim/warp/                    MuJoCo-Warp on an NVIDIA GPU
    sim/isaacgym/                the user's own Isaac Gym, in a worker process
    envs/                        Markov games on an engine
    envs/task.py                 the contract of a task: state, observation, reward, reset
    envs/vec_env.py              E copies of a task; the only place that counts ticks and starts episodes
    envs/pettingzoo/             any PettingZoo ParallelEnv as a task, in worker processes
    envs/views/                  the same environment as Gymnasium, PettingZoo, SB3, TorchRL and rl-games expect it
    gym/                         programs written for Isaac Gym, on these engines: python -m dima_isaac.gym SCRIPT
    replay/                      a ring of states on the simulator's device, and the windows drawn from it

    nn/                          layers, optimiser steps and running statistics that both learners share
    world_model/                 what comes next: denoiser, reward and termination, observations
    world_model/target.py        what is diffused: the next state, or what a regression leaves of its change
    world_model/denoiser.py      D(y; sigma), given the history and the actions visible so far
    world_model/reveal.py        which agents' actions the denoiser sees at each reverse step
    world_model/sampler.py       the reverse process
    world_model/held_out.py      errors on steps not learnt from: shrinkage, and errors that imagined steps add
    world_model/world_model.py   the parts together: updates, one step
    world_model/imagine.py       a dream: policy and world model in turn
    world_model/paper/           networks that only ``preset=paper`` uses
    agent/                       what to do: actors, central critics, returns; SAC from replay and dreams, PPO on dreams

    config.py                    a run's settings: the dataclasses of all packages as one tree
    run/                         one run: configuration to objects, folder, checkpoints, log, signals
    training/                    learning: the loop, evaluation, probes of the world model, baselines
    training/trainer.py          the algorithm's box: collect, learn the world, learn in dreams
    training/dyna.py             its other half on hands: learn from replay and from dreams of enough held-out skill
    tools/                       evaluate, play, export and plot
    bench/                       speed of engines, dreams and the whole loop
    cli/                         from the words typed to a run or a tool

    tasks/                       the Markov games, one file each (the checkout's top-level folder)
    cfg/                         their values and the presets', in YAML (the checkout's top-level folder)
    zoo/                         small trained policies (the checkout's top-level folder)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dima_isaac import _checkout as _checkout

if TYPE_CHECKING:
    from dima_isaac.envs.vec_env import VecEnv
    from dima_isaac.tools.policies import Policy

__version__ = "0.1.0"


def make(
    task: str, num_envs: int = 64, engine: str = "auto", seed: int = 0, device: str = "auto", **overrides: Any
) -> VecEnv:
    """Build ``num_envs`` copies of a task; keyword ``overrides`` reach the task's configuration.

    >>> env = make("ShadowHandOver", num_envs=64, engine="mujoco", seed=0)
    >>> step = env.reset()
    >>> step = env.step(action)          # action (E, N, A) in [-1, 1]

    Raises:
        UsageError: an unknown task, engine or override; the message lists the alternatives.
    """
    from dima_isaac.run.build import build_env_by_name  # torch is imported only once an environment is wanted

    return build_env_by_name(task, num_envs=num_envs, engine=engine, seed=seed, device=device, overrides=overrides)


def train(
    cfg: Mapping[str, Any] | None = None,
    *,
    callbacks: Iterable[Callable[[dict[str, float | None]], Any]] = (),
    **overrides: Any,
) -> Generator[dict[str, float | None], None, None]:
    """Train, and give each row of metrics as it is written to the run folder; leaving early saves a checkpoint.

    >>> for row in train(task="ShadowHandOver", algo="sac", max_env_steps=300_000):
    ...     print(row["env_steps"], row.get("eval/return"))

    Args:
        cfg: keys of the command line with their values, dotted ones too: {"agent.gamma": 0.96}.
        overrides: the same, and they win.
        callbacks: each is called with every row; algo=ppo and mappo give their rows to callbacks in time, and to
            the iteration at the end.

    Raises:
        UsageError: a wrong key or value, at the call; a folder that cannot be used, with the first row.
        CheckpointError, SimulationError, DivergenceError, WorkerError: as a run on the command line ends.
    """
    from dima_isaac.cli.train import train_rows

    return train_rows({**(cfg or {}), **overrides}, list(callbacks))


def load_policy(checkpoint: str | os.PathLike[str], device: str = "cpu") -> Policy:
    """A trained team: ``act(obs)`` gives the deterministic action (..., N, A) for obs (..., N, O), ``spec`` the task's.

    >>> policy = load_policy("zoo:ShadowHandOver")   # or a run folder, a .pt file, an exported folder, latest
    >>> action = policy.act(step.obs)

    Raises:
        CheckpointError: missing, torn or altered, or of a task that is not known here.
        UsageError: the zoo has no such policy; the message lists those that it has.
    """
    from dima_isaac.tools.policies import load_policy as load

    return load(os.fspath(checkpoint), device)
