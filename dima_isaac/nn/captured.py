"""A function of tensors that is recorded once and then played: a CUDA graph on a GPU, a tape elsewhere.

Small networks keep a GPU waiting for Python; a graph launches all their kernels at once. The result is that of the
function itself, random numbers included, if the function keeps these rules:

- it reads and changes tensors in place and draws from known generators; whatever else it does happens once;
- it makes no decision by the value of a tensor, and none that should fall differently at another call;
- shapes depend on its arguments' shapes alone. Each set of them has a graph of its own.

Not verified on a GPU yet.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dima_isaac.nn import tape
from dima_isaac.nn.tree import tree_leaves, tree_map

WARM = 3  # calls before the recording: they make optimiser states, allocate workspaces and choose kernels


class Captured:
    """``work``, played. What a call returns may be overwritten by the next one."""

    def __init__(self, work: Callable[..., Any], generators: Callable[[], Iterable[torch.Generator]] = tuple) -> None:
        """``generators`` tells, at recording, whom ``work`` draws from."""
        self.work, self._generators = work, generators
        self._inputs: dict[Any, Any] = {}
        self._calls: dict[Any, int] = {}
        self._players: dict[Any, Callable[[], Any]] = {}

    def __call__(self, *args: Any) -> Any:
        """As ``work(*args)``. The first ``WARM`` calls of every set of shapes are plain ones, on a stream aside."""
        given: list[Tensor] = tree_leaves(args)
        shapes = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in given)
        if shapes in self._players:
            for own, new in zip(tree_leaves(self._inputs[shapes]), given, strict=True):
                own.copy_(new)
            return self._players[shapes]()
        on_gpu = given[0].device.type == "cuda"
        self._calls[shapes] = self._calls.get(shapes, 0) + 1
        if self._calls[shapes] <= WARM:
            return self._aside(args, given[0].device) if on_gpu else self.work(*args)
        inputs = self._inputs[shapes] = tree_map(Tensor.clone, args)
        if on_gpu:
            play = self._graph(inputs, given[0].device)
            result = play()  # capturing ran nothing
        else:
            play, result = tape.record(self.work, inputs)
        self._players[shapes] = play
        return result

    def forget(self) -> None:
        """Record anew: optimiser states or generators have been replaced."""
        self._inputs, self._calls, self._players = {}, {}, {}

    def _aside(self, args: Any, device: torch.device) -> Any:
        """A plain call on another stream, as graphs ask for before a capture."""
        with torch.cuda.device(device):
            main, side = torch.cuda.current_stream(), _side(device)
            side.wait_stream(main)
            with torch.cuda.stream(side):
                result = self.work(*args)
            main.wait_stream(side)
        for tensor in tree_leaves(result):  # its memory belongs to the other stream
            tensor.record_stream(main)
        return result

    def _graph(self, inputs: Any, device: torch.device) -> Callable[[], Any]:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators():
            graph.register_generator_state(generator)
        collecting = gc.isenabled()
        gc.disable()  # what a collection frees, other libraries' memory too, would be freed inside the capture
        try:
            with torch.cuda.device(device), torch.cuda.graph(graph, stream=_side(device)):
                result = self.work(*inputs)
        finally:
            if collecting:
                gc.enable()

        def play() -> Any:
            graph.replay()
            return result

        return play


@lru_cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """One stream for all warm calls and captures: memory and workspaces are kept for each stream."""
    return torch.cuda.Stream(device)
