"""``gpus=N``: this command once more for each GPU of the machine, as the ranks of one run."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial

from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError, WorkerError

_FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h: the signal that a process is sent when its parent dies
_GRACE = 120.0  # seconds in which the other ranks save and end, once one has failed


def is_rank() -> bool:
    """Whether this process is one of several that train one run, by torchrun's environment variables."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join_submitit() -> None:
    """Make the tasks that submitit started for one job the ranks of its run (``hydra.launcher.tasks_per_node``)."""
    if "SUBMITIT_EXECUTOR" in os.environ:
        import submitit

        if submitit.JobEnvironment().num_tasks > 1:
            submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)


def number(cfg: RunConfig) -> int:
    """The number of ranks that ``cfg.gpus`` stands for: one for each GPU, or with ``rl_device=cpu`` as many on the CPU.

    Raises:
        UsageError: more GPUs than there are.
    """
    if cfg.gpus == 1 or (cfg.gpus != "all" and cfg.rl_device == "cpu"):
        return int(cfg.gpus)
    import torch

    there = torch.cuda.device_count()
    if there < (1 if cfg.gpus == "all" else int(cfg.gpus)):
        raise UsageError(f"gpus={cfg.gpus}, but torch sees {there}; gpus=N rl_device=cpu starts N ranks on the CPU.")
    return there if cfg.gpus == "all" else int(cfg.gpus)


def launch(ranks: int) -> int:
    """Start ``ranks`` processes of this command, pass signals on to them and return their exit code.

    Where codes differ it is the least that is not 0: those who lose a rank end with ``WorkerError``'s, which is greater
    than that of most causes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *sys.argv] if sys.argv[0].endswith(".py") else sys.argv
    shared = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children: list[subprocess.Popen[bytes]] = []

    def forward(signal_number: int, frame: object) -> None:
        for child in children:
            child.send_signal(signal_number)

    before = {code: signal.signal(code, forward) for code in _FORWARDED}
    try:
        for rank in range(ranks):
            own = {key: str(value) for key, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
            # in a session of its own, or a terminal's Ctrl-C would reach it twice, which ends it at once
            with_parent = partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGTERM)
            environ = {**os.environ, **own}
            children.append(subprocess.Popen(command, env=environ, start_new_session=True, preexec_fn=with_parent))
        return _wait(children)
    finally:
        for child in children:
            child.kill()  # does nothing to one that has ended
        for code, handler in before.items():
            signal.signal(code, handler)


def _wait(children: list[subprocess.Popen[bytes]]) -> int:
    deadline = float("inf")
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
        if deadline == float("inf") and any(child.returncode for child in children):
            deadline = time.monotonic() + _GRACE
    codes = [WorkerError.exit_code if child.poll() is None else child.returncode for child in children]
    return min((code if code > 0 else WorkerError.exit_code for code in codes if code), default=0)
