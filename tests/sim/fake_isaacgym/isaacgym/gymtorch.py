"""Tensors and pointers to them."""

import weakref

import torch


class Pointer:
    """What the real one keeps of a tensor: where it is, not that it lives."""

    def __init__(self, tensor):
        if not tensor.is_contiguous():
            raise RuntimeError("a tensor must be contiguous to be unwrapped")
        self._tensor = weakref.ref(tensor)

    def read(self, dtype, count):
        tensor = self._tensor()
        if tensor is None:
            raise RuntimeError("the tensor behind a pointer was freed")
        if tensor.dtype != dtype or tensor.numel() != count:
            raise RuntimeError(f"expected {count} numbers of {dtype}, not {tensor.numel()} of {tensor.dtype}")
        return tensor.detach().clone().view(-1)


def unwrap_tensor(tensor):
    return Pointer(tensor)


def wrap_tensor(tensor):
    assert isinstance(tensor, torch.Tensor)
    return tensor
