"""Layers and multi-layer perceptrons that the world model and the agent build their networks from."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.SiLU, norm: bool = False) -> nn.Sequential:
    """Linear layers of ``sizes`` with ``activation`` (after a layer norm if ``norm``) between them."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        if i:
            layers += [nn.LayerNorm(fan_in)] if norm else []
            layers.append(activation())
        layers.append(nn.Linear(fan_in, fan_out))
    return nn.Sequential(*layers)


def normed_mlp(inputs: int, hidden: Sequence[int], outputs: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    """[Linear, ``norm``, ReLU] per hidden size, then a Linear."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(inputs, size), norm(size), nn.ReLU()]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def orthogonal_mlp(inputs: int, hidden: Sequence[int], outputs: int, relu: bool, out_gain: float) -> nn.Sequential:
    """[Linear, ReLU or SiLU, LayerNorm] per hidden size, then a Linear of gain ``out_gain``; biases start at zero."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [_orthogonal(inputs, size, math.sqrt(2.0)), nn.ReLU() if relu else nn.SiLU(), nn.LayerNorm(size)]
        inputs = size
    return nn.Sequential(*layers, _orthogonal(inputs, outputs, out_gain))


def mixed_precision(net: nn.Sequential, x: Tensor, bf16: bool) -> Tensor:
    """``net`` (x), with ``bf16`` in bfloat16 but for its last layer.

    A mean action or a value needs more digits than bfloat16 has.
    """
    head = net[-1]
    assert isinstance(head, nn.Linear)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        x = net[:-1](x)
    return F.linear(x.to(head.weight.dtype), head.weight, head.bias)


def _orthogonal(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class FourierFeatures(nn.Module):
    """A number as ``size`` waves: [cos 2 pi w c, sin 2 pi w c], with fixed w ~ N(0, 1)."""

    frequency: Tensor

    def __init__(self, size: int) -> None:
        """``size`` is even."""
        super().__init__()
        self.register_buffer("frequency", torch.randn(size // 2))

    def forward(self, value: Tensor) -> Tensor:
        """(...,) -> (..., size)."""
        angle = 2.0 * math.pi * value.unsqueeze(-1) * self.frequency
        return torch.cat([angle.cos(), angle.sin()], -1)


class AdaLayerNorm(nn.Module):
    """Layer norm whose scale and shift are linear in a condition vector."""

    def __init__(self, width: int, cond: int) -> None:
        super().__init__()
        self.width = width
        self.modulate = nn.Linear(cond, 2 * width)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (B, width), cond (B or 1, cond) -> (B, width)."""
        scale, shift = self.modulate(cond).chunk(2, -1)
        return F.layer_norm(x, (self.width,)) * (1.0 + scale) + shift
