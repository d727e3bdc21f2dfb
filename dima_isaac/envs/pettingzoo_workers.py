"""Any PettingZoo ``ParallelEnv`` behind ``VecEnv``: environments in worker processes, their numbers in shared memory.

The state is everything the agents see, one after the other, so that ``observe`` is a gather here too. A team needs
one reward: the mean of the agents'. Actions are numbers in [-1, 1], stretched to a Box's bounds; of a Discrete space's
n numbers the largest is taken. A worker that dies or answers no more is named and replaced once, and its environments
start anew.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import multiprocessing.util
import os
import time
from itertools import pairwise
from multiprocessing.connection import wait
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dima_isaac.envs.config import PettingZooConfig
from dima_isaac.envs.noise import Noise
from dima_isaac.envs.parallel_worker import OK, RESET, STEP, STOP, Layout, build, numbers, serve
from dima_isaac.envs.task import Outcome, Task, TaskSpec
from dima_isaac.errors import SimulationError, UsageError, WorkerError
from dima_isaac.sim.engine import Capabilities
from dima_isaac.types import Dims

_LOG = logging.getLogger(__name__)
_SEEDS = 1 << 24  # as many as a float32 tells apart


class PettingZooTask(Task):
    """A task whose physics is the environment itself."""

    Config = PettingZooConfig
    own_engine = True

    def __init__(self, cfg: PettingZooConfig) -> None:
        """Make one environment to read its agents and spaces.

        Raises:
            UsageError: no ``env_id``, an environment that cannot be made, or spaces that are not of numbers.
        """
        if not cfg.env_id:
            raise UsageError("task=pettingzoo needs task.env_id=package.module:factory, or a module with parallel_env.")
        self.cfg = cfg
        probe = build(cfg.env_id, dict(cfg.env_args))
        agents = tuple(probe.possible_agents)
        if not agents:
            raise UsageError(f"{cfg.env_id}: possible_agents is empty; a team's members must be known from the start.")
        seen = []
        for name in agents:
            space = probe.observation_space(name)
            if getattr(space, "shape", None) is None:
                raise UsageError(f"{cfg.env_id}: {name} observes {space}; only arrays can be told in numbers.")
            seen.append(int(np.prod(space.shape)))
        self.layout = Layout(0, agents, tuple(seen), tuple(numbers(probe.action_space(name)) for name in agents))
        probe.close()
        width, longest = sum(seen), max(seen)
        columns, start = [], 0
        for size in seen:
            columns += [*range(start, start + size), *([width] * (longest - size))]
            start += size
        self._index = torch.tensor(columns)
        slots = max(self.layout.actions)
        used = torch.tensor([[k < own for k in range(slots)] for own in self.layout.actions])
        self.spec = TaskSpec(
            name=cfg.env_id,
            dims=Dims(agents=len(agents), state=width, obs=longest, action=slots),
            episode_length=cfg.episode_length,
            control_dt=float("nan"),
            agent_names=agents,
            goal=False,
            action_mask=None if bool(used.all()) else used,
            notes=(f"{cfg.env_id} in worker processes", "state: what all agents see; reward: the agents' mean"),
        )

    def build_engine(self, num_envs: int) -> ParallelEngine:
        """The workers: this task brings its own engine."""
        return ParallelEngine(self.cfg, self.layout, num_envs)

    def bind(self, engine: Any) -> None:
        """Remember the workers' arrays."""
        self._arrays = engine.arrays
        self._never = torch.zeros(engine.num_envs, dtype=torch.bool)

    def reset(self, engine: Any, mask: Tensor, noise: Noise) -> None:
        """Seeds for the environments of ``mask``."""
        seed = ((noise.uniform(1)[:, 0] + 1.0) * (_SEEDS / 2)).to(torch.int64)
        engine.stage_reset(mask, seed)

    def act(self, engine: Any, action: Tensor) -> None:
        """Hand the actions (E, N, A) over."""
        self._arrays["action"].copy_(action)

    def state(self, engine: Any) -> Tensor:
        """(E, D): what all agents see."""
        return self._arrays["state"].clone()

    def observe(self, state: Tensor) -> Tensor:
        """What each agent sees: (..., D) -> (..., N, O)."""
        if self._index.device != state.device:
            self._index = self._index.to(state.device)
        padded = torch.nn.functional.pad(state, (0, 1))
        return padded.index_select(-1, self._index).unflatten(-1, (self.spec.dims.agents, self.spec.dims.obs))

    def compute_reward(self, engine: Any) -> Outcome:
        """The agents' mean reward; the environment's own end and clock."""
        arrays = self._arrays
        reward = arrays["reward"].clone()
        return Outcome(reward, arrays["terminal"].clone(), self._never, {}, truncated=arrays["truncated"].clone())


class ParallelEngine:
    """E environments on W worker processes. Only what ``VecEnv`` asks of an engine."""

    capabilities = Capabilities(deterministic=True, on_host=True)
    substeps = 1
    control_dt = math.nan

    def __init__(self, cfg: PettingZooConfig, layout: Layout, num_envs: int) -> None:
        """Start the workers.

        Raises:
            WorkerError: one of them cannot make its environments.
        """
        self.cfg, self.num_envs, self.device = cfg, num_envs, torch.device("cpu")
        self.layout = Layout(num_envs, layout.agents, layout.obs, layout.actions)
        self._memory = SharedMemory(create=True, size=self.layout.nbytes())
        shared = self.layout.on(self._memory.buf)
        self.arrays = {name: torch.from_numpy(value) for name, value in shared.items()}
        self.bad = torch.zeros(num_envs, dtype=torch.bool)
        self._staged = torch.zeros(num_envs, dtype=torch.bool)
        self._restarts = 0
        self._context = multiprocessing.get_context("spawn")
        count = min(cfg.workers or len(os.sched_getaffinity(0)), num_envs)
        bounds = [round(i * num_envs / count) for i in range(count + 1)]
        self.workers = [_Worker(f"worker {i}", a, b) for i, (a, b) in enumerate(pairwise(bounds))]
        # who was never closed stops its workers before Python waits for them: they do not hear its SIGTERM
        multiprocessing.util.Finalize(self, _stop, (self.workers,), exitpriority=0)
        for worker in self.workers:
            self._spawn(worker)
        for worker in self.workers:
            self._await(worker, cfg.start_patience, "making its environments")

    def stage_reset(self, mask: Tensor, seed: Tensor) -> None:
        """Seeds (E,) for the environments of ``mask``, used by the next ``step`` or ``refresh``."""
        self.arrays["seed"].copy_(torch.where(mask, seed, self.arrays["seed"]))

    def step(self, hold: Tensor) -> None:
        """One tick of every environment; where ``hold`` it is spent on a reset.

        Who is given an action that is not finite, or sees or earns what is not, is ``bad``.
        """
        self.bad.copy_(self._staged | ~self._finite("action") & ~hold)
        self.arrays["mask"].copy_(hold | self.bad)
        self._staged.zero_()
        self._command(STEP)
        self.bad |= ~(self._finite("state") & self._finite("reward"))

    def refresh(self, mask: Tensor) -> None:
        """Start the environments of ``mask`` anew.

        Raises:
            SimulationError: one of them begins with an observation that is not finite.
        """
        self.arrays["mask"].copy_(mask)
        self._command(RESET)
        if bool((mask & ~self._finite("state")).any()):
            raise SimulationError(f"{self.cfg.env_id} begins its episodes with observations that are not finite.")

    def _finite(self, name: str) -> Tensor:
        """(E,) bool: every number of this array is."""
        return self.arrays[name].isfinite().reshape(self.num_envs, -1).all(1)

    def _command(self, command: bytes) -> None:
        """Tell all workers, then wait for each; the lost ones are replaced."""
        for worker in self.workers:
            worker.tell(command)
        deadline = time.monotonic() + self.cfg.patience
        for worker in self.workers:
            why = worker.hear(max(0.0, deadline - time.monotonic()))
            if why:
                self._replace(worker, why)
                if command == RESET:
                    # whoever was not to be reset has lost its episode too, and says so at the next tick
                    mine = slice(worker.first, worker.last)
                    self._staged[mine] |= ~self.arrays["mask"][mine]
                    worker.tell(RESET)
                    self._await(worker, self.cfg.patience, "starting its environments again")

    def _replace(self, worker: _Worker, why: str) -> None:
        """A new process for a lost one's environments, which are reported broken; the second loss is final."""
        worker.kill()
        if worker.replaced:
            self.close()
            raise WorkerError(f"{worker} {why}, and had been replaced before; {self.cfg.env_id} does not run reliably.")
        _LOG.warning("%s %s; it is replaced once, and its environments start anew", worker, why)
        worker.replaced = True
        self._restarts += 1
        self._spawn(worker)
        self._await(worker, self.cfg.start_patience, "making its environments again")
        self.bad[worker.first : worker.last] = True

    def _spawn(self, worker: _Worker) -> None:
        worker.pipe, theirs = self._context.Pipe()
        what = (self._memory.name, self.cfg.env_id, dict(self.cfg.env_args), self.layout, worker.first, worker.last)
        worker.process = self._context.Process(target=serve, args=(theirs, *what), name=worker.name, daemon=True)
        worker.process.start()
        theirs.close()

    def _await(self, worker: _Worker, seconds: float, doing: str) -> None:
        why = worker.hear(seconds)
        if why:
            self.close()
            raise WorkerError(f"{worker}, {doing}: it {why}.")

    def stats(self) -> dict[str, Tensor]:
        """``restarts``: workers replaced."""
        return {"restarts": torch.tensor(self._restarts)}

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: other people's environments cannot be saved."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Every environment starts anew at the next tick."""
        self._staged.fill_(True)

    def render(self, env: int, width: int, height: int) -> np.ndarray:
        """Not offered.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{self.cfg.env_id} runs in worker processes and draws no pictures; use capture_video=False.")

    def close(self) -> None:
        """Stop the workers and free the shared memory."""
        _stop(self.workers)
        self.workers = []
        if self._memory is not None:
            for name, value in self.arrays.items():
                self.arrays[name] = value.clone()  # the task holds this very dictionary
            self._memory.unlink()
            self._memory = None  # type: ignore[assignment]


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.stop()


class _Worker:
    """One process and the environments it owns."""

    def __init__(self, name: str, first: int, last: int) -> None:
        self.name, self.first, self.last = name, first, last
        self.replaced = False
        self.pipe: Any = None
        self.process: Any = None

    def __str__(self) -> str:
        return f"{self.name} (environments {self.first} to {self.last - 1})"

    def tell(self, command: bytes) -> None:
        try:
            self.pipe.send_bytes(command)
        except OSError:
            return  # hear() finds out why

    def hear(self, seconds: float) -> str:
        """'' when the worker answered well, else what became of it."""
        ready = wait([self.pipe, self.process.sentinel], seconds)
        if self.pipe in ready:
            try:
                answer = self.pipe.recv()
            except (EOFError, OSError):
                answer = ""
            if answer == OK:
                return ""
            if answer:
                return f"failed: {answer.strip()}"
        elif not ready:
            return f"gave no answer for {seconds:.0f} s"
        self.process.join(1.0)
        return f"died with exit code {self.process.exitcode}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join(1.0)
        self.pipe.close()

    def stop(self) -> None:
        if self.process is None:
            return
        self.tell(STOP)
        self.process.join(0.5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(1.0)
