"""The multilayer perceptron of the actor and critic: orthogonal initialisation, LayerNorm after each activation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU, "tanh": nn.Tanh}


def orthogonal_mlp(inputs: int, hidden: Sequence[int], outputs: int, activation: str, out_gain: float) -> nn.Sequential:
    """[Linear, activation, LayerNorm] per hidden size, then a Linear of gain ``out_gain``; biases start at zero."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [_linear(inputs, size, math.sqrt(2.0)), ACTIVATIONS[activation](), nn.LayerNorm(size)]
        inputs = size
    return nn.Sequential(*layers, _linear(inputs, outputs, out_gain))


def _linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
