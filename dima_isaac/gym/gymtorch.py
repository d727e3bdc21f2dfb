"""``isaacgym.gymtorch``: Isaac Gym's tensors as torch's, on the same memory, and back."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class GymTensor:
    """What the calls of the tensor API take and give; it keeps its memory alive, which Isaac Gym's does not."""

    torch: torch.Tensor


def wrap_tensor(gym_tensor: GymTensor, offsets: object = None, counts: object = None) -> torch.Tensor:
    """The torch tensor on the same memory."""
    if not isinstance(gym_tensor, GymTensor):
        raise TypeError(f"wrap_tensor takes what an acquire_* call gives, not {type(gym_tensor).__name__}")
    return gym_tensor.torch


def unwrap_tensor(torch_tensor: torch.Tensor) -> GymTensor:
    """The tensor for a setter; ValueError where its memory is not contiguous, as in Isaac Gym."""
    if not torch_tensor.is_contiguous():
        raise ValueError("unwrap_tensor needs a contiguous tensor: call .contiguous() and keep the result")
    return GymTensor(torch_tensor)


def given(tensor: object) -> torch.Tensor:
    """The torch tensor of a setter's argument."""
    if not isinstance(tensor, GymTensor):
        raise TypeError(f"this call takes gymtorch.unwrap_tensor(tensor), not {type(tensor).__name__}")
    return tensor.torch
