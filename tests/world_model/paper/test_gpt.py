"""The transformer: the future and padding are invisible, dropout belongs to its generator."""

import pytest
import torch

from dima_isaac.world_model.paper.gpt import Gpt, dropout


def gpt() -> Gpt:
    torch.manual_seed(0)
    return Gpt(length=8, width=16, layers=2, heads=4, p=0.5)


@torch.no_grad()
def test_the_future_is_invisible():
    net, tokens = gpt(), torch.randn(1, 8, 16)
    changed = tokens.clone()
    changed[:, 5] += torch.randn(16)
    moved = (net(tokens) - net(changed)).abs().amax((0, 2)) > 1e-6
    assert moved.tolist() == [False] * 5 + [True] * 3


@torch.no_grad()
def test_padding_is_invisible_to_valid_tokens():
    net, tokens = gpt(), torch.randn(1, 8, 16)
    valid = torch.tensor([[False] * 3 + [True] * 5])
    changed = tokens.clone()
    changed[:, :3] += torch.randn(16)
    assert torch.allclose(net(tokens, valid)[:, 3:], net(changed, valid)[:, 3:], atol=1e-5)
    assert net(tokens, valid).isfinite().all()


@torch.no_grad()
def test_dropout_repeats_with_its_generator_and_keeps_the_mean():
    net, tokens = gpt(), torch.randn(1, 8, 16)
    draws = [net(tokens, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    ones = dropout(torch.ones(100_000), 0.25, torch.Generator().manual_seed(0))
    assert set(ones.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()} and abs(ones.mean() - 1) < 0.01


@torch.no_grad()
def test_with_dropout_off_both_attention_paths_agree():
    net, tokens = gpt(), torch.randn(2, 8, 16)
    for block in net.blocks:
        block.p = 0.0
    net.p = 0.0
    assert torch.allclose(net(tokens), net(tokens, generator=torch.Generator()), atol=1e-5)


def test_too_many_tokens_are_refused():
    with pytest.raises(ValueError, match="9 tokens do not fit the 8 positions"):
        gpt()(torch.zeros(1, 9, 16))
