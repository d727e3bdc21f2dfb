"""What each agent sees of a state, as columns of it."""

import torch
from torch import Tensor


class AgentView:
    """``view(state)`` gives (..., N, O) of a state (..., D): each agent's columns, and zeros after the shorter ones.

    A column D, past the end, is a number that is always 0.
    """

    def __init__(self, columns: list[list[int]], width: int) -> None:
        """``columns`` of each of N agents, in a state of ``width`` D."""
        longest = max(map(len, columns))
        self._shape = len(columns), longest
        index = [column for own in columns for column in own + [width] * (longest - len(own))]
        self._index, self._padded = torch.tensor(index), width in index  # (N * O,)

    def __call__(self, state: Tensor) -> Tensor:
        if self._index.device != state.device:
            self._index = self._index.to(state.device)
        source = torch.nn.functional.pad(state, (0, 1)) if self._padded else state
        return source.index_select(-1, self._index).unflatten(-1, self._shape)
