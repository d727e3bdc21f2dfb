"""Misses come back whole, and only the newest."""

import torch

from dima_isaac.nn.surprise import Surprise


def test_the_newest_misses_are_drawn_as_whole_vectors():
    surprise, rng = Surprise(2, rows=8), torch.Generator().manual_seed(0)
    assert surprise.draw(5, rng).eq(0).all()
    surprise.update(torch.full((8, 2), -1.0))
    pairs = torch.stack([torch.arange(1.0, 9.0), -torch.arange(1.0, 9.0)], 1)
    surprise.update(pairs[:4])
    drawn = surprise.draw(500, rng)
    assert {tuple(row) for row in drawn.tolist()} == {(-1.0, -1.0), (1, -1), (2, -2), (3, -3), (4, -4)}
    surprise.update(torch.cat([torch.full((20, 2), 7.0), pairs]))
    assert torch.equal(surprise.draw(500, rng).sum(1), torch.zeros(500)), "more than it holds: the newest stay"
