"""Several processes that train one run: ranks, each with environments, replay and a device of its own.

Networks, optimisers and running statistics are the same on every rank, since all that changes them is summed or
averaged over the ranks first; what ranks draw at random differs. In a process of its own every function here returns
what it is given. All ranks have to call them in the same order.

Tensors travel by NCCL between GPUs and by gloo otherwise, control messages always by gloo.
"""

import atexit
import io
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dima_isaac.errors import DimaError, WorkerError

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # for a rank that does not answer; one that has died is noticed at once
_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "microseconds period" of a container's cores, or "max period"
_SEEDS = 1_000_000_007  # between the seeds of two ranks, modulo 2^32

_control: Any = None  # the gloo group of control messages
_lost = False
_alone = False  # while rank 0 does what the others wait for


def start() -> None:
    """Join the ranks that torchrun, or ``gpus=``, has started (``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ...).

    Raises:
        WorkerError: the others do not come.
    """
    global _control, _lost
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    _lost = False
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
        _control = dist.new_group(backend="gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise WorkerError(f"cannot join the other ranks: {_reason(error)}.") from error
    atexit.register(stop)


def stop() -> None:
    """Leave the other ranks. Groups that are left to the interpreter's end may abort it once a rank is lost."""
    global _control
    if dist.is_initialized():
        dist.destroy_process_group()
    _control = None


def count() -> int:
    """The number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Its number among those of this machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if count() > 1 else 0


def local_count() -> int:
    """The number of ranks on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count())) if count() > 1 else 1


def cores() -> int:
    """Cores for this rank: its share of the process's affinity and of the container's quota, where there is one."""
    available = len(os.sched_getaffinity(0))
    if _QUOTA.is_file():
        limit, period = _QUOTA.read_text().split()
        if limit != "max":
            available = min(available, int(limit) // int(period))
    return max(1, available // local_count())


def seed(base: int) -> int:
    """A seed of this rank's own; rank 0 keeps ``base``."""
    return (base + _SEEDS * rank()) % 2**32 if rank() else base


def lost() -> bool:
    """Whether another rank has died: from then on every function here returns what it is given."""
    return _lost


def leave() -> None:
    """From now on do as if the other ranks had died; they notice when this process ends."""
    global _lost
    _lost = count() > 1


def total(*values: Tensor) -> tuple[Tensor, ...]:
    """The sums over all ranks, in one message."""
    if not _several():
        return values
    flat = torch.cat([value.detach().reshape(-1) for value in values])
    with _exchange():
        dist.all_reduce(flat)
    return tuple(
        part.view_as(value) for part, value in zip(flat.split([v.numel() for v in values]), values, strict=True)
    )


def mean(value: Tensor) -> Tensor:
    """The mean over all ranks, without a gradient; with one rank ``value`` itself."""
    return total(value)[0] / count() if _several() else value


def average_(tensors: Iterable[Tensor]) -> None:
    """Replace each of ``tensors``, all of one type, by its mean over the ranks, in one message."""
    if _several():
        own = list(tensors)
        torch._foreach_copy_(own, [sum_.div_(count()) for sum_ in total(*own)])


def maximum(value: Tensor) -> Tensor:
    """The greatest of all ranks' values, elementwise."""
    if _several():
        value = value.clone()
        with _exchange():
            dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def concatenated(rows: Tensor) -> Tensor:
    """The rows (B, ...) of all ranks, as many of each, in the order of ranks."""
    if not _several():
        return rows
    out = [torch.empty_like(rows) for _ in range(count())]
    with _exchange():
        dist.all_gather(out, rows.contiguous())
    return torch.cat(out)


def agreed(stop: str | None) -> str | None:
    """The name of the signal that this or any other rank was sent, the same one everywhere; None without any."""
    if not _several():
        return stop
    number = torch.tensor(int(signal.Signals[stop]) if stop else 0)
    with _exchange():
        dist.all_reduce(number, dist.ReduceOp.MAX, group=_control)
    return signal.Signals(int(number)).name if number else None


def gathered(payload: Any) -> list[Any]:
    """On rank 0 what every rank gives (tensors and plain values, nested), tensors on the CPU; elsewhere its own."""
    if not _several():
        return [payload]
    file = io.BytesIO()
    torch.save(payload, file)
    out: list[Any] = [None] * count()
    with _exchange():
        dist.gather_object(file.getvalue(), out if rank() == 0 else None, group=_control)
    if rank():
        return [payload]
    return [torch.load(io.BytesIO(text), map_location="cpu", weights_only=True) for text in out]


def from_first(function: Callable[[], T]) -> T:
    """What ``function`` returns on rank 0, the only one to call it; in it every function here returns what it is given.

    Raises:
        DimaError: what it raises there. The other ranks end silently, with the same exit code.
    """
    global _alone
    if not _several():
        return function()
    result: Any = None
    error: DimaError | None = None
    if rank() == 0:
        _alone = True
        try:
            result = function()
        except DimaError as raised:
            error = raised
        finally:
            _alone = False
    message = [(result, error and error.exit_code)]
    with _exchange():
        dist.broadcast_object_list(message, src=0, group=_control)
    result, code = message[0]
    if error is not None:
        raise error
    if code is not None:
        raise SystemExit(code)
    answer: T = result
    return answer


def after_first(function: Callable[[], T]) -> T:
    """What ``function`` returns here; the other ranks call it once rank 0 has. Raises what ``from_first`` does."""
    own: list[T] = []
    from_first(lambda: own.append(function()))
    return own[0] if own else function()


def _several() -> bool:
    return dist.is_initialized() and not _lost and not _alone and dist.get_world_size() > 1


@contextmanager
def _exchange() -> Iterator[None]:
    """A failed message means that another rank is gone, since a message has nothing else to fail by."""
    global _lost
    try:
        yield
    except RuntimeError as error:
        _lost = True
        raise WorkerError(f"rank {rank()} has lost another rank: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """The first sentence of gloo's or NCCL's message, without the place in their source."""
    return re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).partition(". ")[0].rstrip(".")
