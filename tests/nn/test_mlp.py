"""The light backbone: what is computed once for all reverse steps changes nothing."""

import torch
from torch.nn import functional as F

from dima_isaac.nn.mlp import DenoiserMlp

D, HISTORY, CODE = 5, 3, 4


@torch.no_grad()
def test_split_of_the_first_layer_equals_the_layer() -> None:
    net = DenoiserMlp(D, HISTORY, CODE, width=16, blocks=2, fourier=8, cond=6)
    for p in net.parameters():  # the last layer begins at zero
        p.copy_(0.3 * torch.randn(p.shape))
    history, codes = torch.randn(7, HISTORY, D), torch.randn(2, 7, CODE)
    noisy, noise = torch.randn(2, 7, D), torch.randn(7)
    given = net.given(history, codes)
    assert len(given) == 2
    for stage in range(2):
        x = net.enter(torch.cat([noisy[stage], history.flatten(1), codes[stage]], 1))
        for block in net.blocks:
            x = block(x, F.silu(net.noise(noise)))
        whole = net.leave(F.silu(net.norm(x)))
        assert whole.abs().amax() > 0.1
        torch.testing.assert_close(net(noisy[stage], noise, given[stage]), whole, atol=1e-5, rtol=1e-5)
