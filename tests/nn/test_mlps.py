"""Layers by what must hold of them (``nn/layers.py``)."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from dima_isaac.nn.layers import AdaLayerNorm, FourierFeatures, mixed_precision, mlp, orthogonal_mlp


def test_orthogonal_layers_keep_norms_up_to_their_gain_and_start_without_bias():
    net = orthogonal_mlp(8, [8], 8, relu=True, out_gain=0.01)
    first, last = (layer for layer in net if isinstance(layer, nn.Linear))
    for layer, gain in ((first, math.sqrt(2.0)), (last, 0.01)):
        torch.testing.assert_close(layer.weight @ layer.weight.T, gain**2 * torch.eye(8), atol=1e-5, rtol=1e-4)
        assert layer.bias.eq(0).all()


def test_an_mlp_ends_with_a_linear_layer_and_norms_only_between():
    kinds = [type(layer) for layer in mlp([3, 4, 5], nn.GELU, norm=True)]
    assert kinds == [nn.Linear, nn.LayerNorm, nn.GELU, nn.Linear]


def test_fourier_features_have_one_length_whatever_the_number():
    features = FourierFeatures(16)(torch.linspace(-3.0, 3.0, 50))
    torch.testing.assert_close(features.square().sum(-1), torch.full((50,), 8.0))


def test_an_adaptive_norm_without_modulation_is_the_plain_one():
    norm, x = AdaLayerNorm(6, 4), torch.randn(5, 6)
    nn.init.zeros_(norm.modulate.bias)
    torch.testing.assert_close(norm(x, torch.zeros(5, 4)), F.layer_norm(x, (6,)))
    nn.init.constant_(norm.modulate.bias, 1.0)
    torch.testing.assert_close(norm(x, torch.zeros(1, 4)), 2.0 * F.layer_norm(x, (6,)) + 1.0)


def test_mixed_precision_stops_before_the_last_layer():
    net, x = orthogonal_mlp(6, [32, 32], 3, relu=False, out_gain=1.0), torch.randn(50, 6)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = net[:-1](x)
    assert hidden.dtype == torch.bfloat16
    torch.testing.assert_close(mixed_precision(net, x, bf16=True), net[-1](hidden.float()), rtol=0, atol=0)
    assert torch.equal(mixed_precision(net, x, bf16=False), net(x)) and not torch.equal(
        mixed_precision(net, x, bf16=True), net(x)
    )
