"""The least that a learner needs of a task."""

from __future__ import annotations

from types import SimpleNamespace

from torch import Tensor

from dima_isaac.types import Dims, Game


def game(dims: Dims, action_mask: Tensor | None = None) -> Game:
    """Agents that all observe the first ``dims.obs`` numbers of the state."""

    def observe(state: Tensor) -> Tensor:
        return state[..., None, : dims.obs].expand(*state.shape[:-1], dims.agents, dims.obs)

    spec = SimpleNamespace(dims=dims, action_mask=action_mask, last_action_index=None, output_only=None)
    return SimpleNamespace(spec=spec, observe=observe)
