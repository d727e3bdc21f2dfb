"""Functions on several ranks: fresh processes on this machine that exchange tensors by gloo."""

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

from dima_isaac import ranks


def on_ranks(function: Callable[..., Any], count: int, *args: Any) -> list[Any]:
    """What ``function(*args)``, of a module, returns on each of ``count`` ranks: tensors and plain values.

    None for a rank that ends within the function.
    """
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        multiprocessing.spawn(_rank, (count, port, folder, function, args), nprocs=count)
        files = [Path(folder) / str(rank) for rank in range(count)]
        return [torch.load(file) if file.exists() else None for file in files]


def _rank(rank: int, count: int, port: int, folder: str, function: Callable[..., Any], args: tuple) -> None:
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {key: str(value) for key, value in own.items()}
    torch.set_num_threads(1)
    ranks.start()
    torch.save(function(*args), Path(folder) / str(rank))
    ranks.stop()
