"""E environments on W worker processes, with those members of ``Engine`` that ``VecEnv`` uses.

A worker that dies or does not answer is named and replaced once, and its environments start anew.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import multiprocessing.util
import time
from itertools import pairwise
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dima_isaac import ranks
from dima_isaac.envs.pettingzoo.config import PettingZooConfig
from dima_isaac.envs.pettingzoo.worker import OK, RESET, STEP, STOP, Layout, serve
from dima_isaac.errors import SimulationError, UsageError, WorkerError
from dima_isaac.sim.engine import Capabilities

_LOG = logging.getLogger(__name__)
MAX_BROKEN = 100
"""How often each environment may become non-finite without finishing an episode, before a run ends."""


class ParallelEngine:
    """The workers, and the arrays that they share. Methods without a docstring are documented in ``Engine``."""

    capabilities = Capabilities(deterministic=False, on_host=True, rewinds=False)
    substeps = 1
    control_dt = math.nan

    def __init__(self, cfg: PettingZooConfig, layout: Layout, num_envs: int) -> None:
        """Start the workers.

        Raises:
            WorkerError: one of them cannot make its environments.
        """
        self.cfg, self.num_envs, self.device = cfg, num_envs, torch.device("cpu")
        self._context = multiprocessing.get_context("spawn")
        self._layout, self._memory = layout, self._context.RawArray("b", num_envs * layout.row.itemsize)
        rows = np.frombuffer(self._memory, layout.row)
        self.arrays = {name: torch.from_numpy(rows[name]) for name in rows.dtype.names or ()}
        self.bad = torch.zeros(num_envs, dtype=torch.bool)
        self._staged = torch.zeros(num_envs, dtype=torch.bool)  # who starts anew at the next step
        self._restarts = 0
        self._nonfinite = torch.zeros((), dtype=torch.int64)
        self._broken = torch.zeros(num_envs, dtype=torch.int64)  # times since an episode was finished
        count = min(cfg.workers or ranks.cores(), num_envs)
        bounds = [round(i * num_envs / count) for i in range(count + 1)]
        self.workers = [_Worker(f"worker {i}", a, b) for i, (a, b) in enumerate(pairwise(bounds))]
        # an engine that was never closed stops its workers before Python waits for them: they ignore SIGTERM
        multiprocessing.util.Finalize(self, _stop, (self.workers,), exitpriority=0)
        for worker in self.workers:
            self._start(worker)
        for worker in self.workers:
            self._wait(worker, "start_patience", "making its environments")

    def stage_reset(self, mask: Tensor, seed: Tensor) -> None:
        """Seeds (E,) for the environments of ``mask``, used by the next ``step`` or ``refresh``."""
        self.arrays["seed"].copy_(torch.where(mask, seed, self.arrays["seed"]))

    def step(self, hold: Tensor) -> None:
        """One control step of every environment; where ``hold`` it is a reset.

        ``bad`` are those with an action, an observation or a reward that is not finite.

        Raises:
            SimulationError: each of them was bad ``MAX_BROKEN`` times and has finished no episode in between.
        """
        self._broken.masked_fill_(hold, 0)
        self.bad.copy_(self._staged | ~self._finite("action") & ~hold)
        self.arrays["mask"].copy_(hold | self.bad)
        self._staged.zero_()
        self._command(STEP)
        broken = ~(self._finite("action") | hold) | ~(self._finite("state") & self._finite("reward"))
        self.bad |= broken
        self._broken += broken
        self._nonfinite += broken.sum()
        if int(self._broken.min()) >= MAX_BROKEN:
            raise SimulationError(
                f"{self.cfg.env_id}: each of {self.num_envs} environments became non-finite {MAX_BROKEN} times without"
                " finishing an episode; its observations, rewards or the policy's actions are not numbers."
            )

    def refresh(self, mask: Tensor) -> None:
        """Reset the environments of ``mask``.

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
        """Send ``command`` to all workers, wait for each, and replace the lost ones."""
        for worker in self.workers:
            worker.send(command)
        deadline = time.monotonic() + self.cfg.patience
        for worker in self.workers:
            failure = worker.receive(max(0.0, deadline - time.monotonic()), f"task.patience={self.cfg.patience:g}")
            if failure:
                self._replace(worker, failure)
                if command == RESET:
                    # environments that were not to be reset have lost their episodes: flagged bad at the next step
                    own = slice(worker.first, worker.last)
                    self._staged[own] |= ~self.arrays["mask"][own]
                    worker.send(RESET)
                    self._wait(worker, "patience", "starting its environments again")

    def _replace(self, worker: _Worker, failure: str) -> None:
        """A new process for a lost one's environments, which are flagged ``bad``; the second loss is final."""
        worker.kill()
        if worker.replaced:
            self.close()
            raise WorkerError(
                f"{worker} {failure}, and had been replaced before; {self.cfg.env_id} does not run reliably."
            )
        _LOG.warning("%s %s; it is replaced once, and its environments start anew", worker, failure)
        worker.replaced = True
        self._restarts += 1
        self._start(worker)
        self._wait(worker, "start_patience", "making its environments again")
        self.bad[worker.first : worker.last] = True

    def _start(self, worker: _Worker) -> None:
        worker.pipe, theirs = self._context.Pipe()
        what = (self._memory, self.cfg.env_id, dict(self.cfg.env_args), self._layout, worker.first, worker.last)
        worker.process = self._context.Process(target=serve, args=(theirs, *what), name=worker.name, daemon=True)
        worker.process.start()
        theirs.close()

    def _wait(self, worker: _Worker, limit: str, doing: str) -> None:
        failure = worker.receive(getattr(self.cfg, limit), f"task.{limit}={getattr(self.cfg, limit):g}")
        if failure:
            self.close()
            raise WorkerError(f"{worker}, {doing}: it {failure}.")

    def stats(self) -> dict[str, Tensor]:
        """``nonfinite``: environments found so; ``restarts``: workers replaced."""
        return {"nonfinite": self._nonfinite.clone(), "restarts": torch.tensor(self._restarts)}

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: other people's environments cannot be saved."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Every environment starts anew at the next step."""
        self._staged.fill_(True)

    def render(self, env: int, width: int, height: int) -> np.ndarray:
        raise UsageError(
            f"{self.cfg.env_id} runs in worker processes, which draw no pictures; leave capture_video out."
        )

    def close(self) -> None:
        _stop(self.workers)


def _stop(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().stop()


class _Worker:
    """One process and the environments ``first`` to ``last`` - 1 that it owns."""

    def __init__(self, name: str, first: int, last: int) -> None:
        self.name, self.first, self.last = name, first, last
        self.replaced = False
        self.pipe: Any = None
        self.process: Any = None

    def __str__(self) -> str:
        return f"{self.name} (environments {self.first} to {self.last - 1})"

    def send(self, command: bytes) -> None:
        try:
            self.pipe.send_bytes(command)
        except OSError:
            return  # ``receive`` finds out why

    def receive(self, seconds: float, limit: str) -> str:
        """'' when the worker answered that all is well, else what became of it; ``limit`` names that of ``seconds``."""
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
            return f"gave no answer within {limit} s"
        self.process.join(1.0)
        return f"died with exit code {self.process.exitcode}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join(1.0)
        self.pipe.close()

    def stop(self) -> None:
        if self.process is not None:
            self.send(STOP)
            self.process.join(0.5)
            self.kill()
