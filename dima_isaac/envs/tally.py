"""Means over finished episodes, kept on the device until they are read."""

import torch
from torch import Tensor

from dima_isaac import ranks


class EpisodeTally:
    """Sums of named values (E,) over each running episode, and their totals over the finished ones."""

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self._names: tuple[str, ...] = ()
        self._running = torch.zeros(0, num_envs, device=device)  # (values, E) sums of the running episodes
        self._done = torch.zeros(0, device=device)  # (values,) totals over finished episodes
        self._count = torch.zeros((), device=device)  # finished episodes

    def add(
        self, values: dict[str, Tensor], first: Tensor, last: Tensor, begins: bool = True, ends: bool = True
    ) -> None:
        """Add one tick of ``values``, the same names every time; close the episodes that end here.

        ``begins=False`` and ``ends=False`` say that ``first`` and ``last`` are known to be empty.
        """
        if tuple(values) != self._names:
            self._rename(tuple(values))
        torch._foreach_copy_(self._rows, list(values.values()))  # of any precision, in one operation
        self._running += self._values
        if begins:  # an episode's first row adds nothing, and whatever ran before it is over
            self._running.masked_fill_(first, 0.0)
        if ends:
            self._done += self._running @ last.to(self._running.dtype)
            self._count += last.sum()

    def _rename(self, names: tuple[str, ...]) -> None:
        """Keep the sums of values that have a name of ``names``, begin the others at 0, and drop the rest."""
        running, done = self._running.new_zeros(len(names), self._running.shape[1]), self._done.new_zeros(len(names))
        for index, name in enumerate(names):
            if name in self._names:
                old = self._names.index(name)
                running[index], done[index] = self._running[old], self._done[old]
        self._names, self._running, self._done = names, running, done
        self._values = torch.zeros_like(running)
        self._rows = self._values.unbind()

    def drop(self, mask: Tensor) -> None:
        """Clear the running sums where ``mask`` (E,): those episodes were cut off."""
        self._running.masked_fill_(mask, 0.0)

    def read(self) -> dict[str, Tensor]:
        """Mean per finished episode of each value, and their number ``episodes``, since the last call. Of all ranks."""
        done, count = ranks.total(self._done, self._count)
        mean = done / count
        out = {name: mean[index] for index, name in enumerate(self._names)}
        out["episodes"] = count.clone()
        self._done.zero_()
        self._count.zero_()
        return out

    def state_dict(self) -> dict[str, Tensor | list[str]]:
        """The sums, with the names of the values."""
        return {"names": list(self._names), "running": self._running, "done": self._done, "count": self._count}

    def load_state_dict(self, state: dict) -> None:
        """Continue from ``state_dict``; of values that have another name by now nothing is kept."""
        self._running, self._done, self._count = (
            state[name].to(self._count.device).clone() for name in ("running", "done", "count")
        )
        self._names = tuple(state["names"])
        self._rename(self._names)
