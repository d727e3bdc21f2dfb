"""What the reward model predicts: the row a step arrives in, inside an episode, in units of what it has seen."""

import math

import pytest
import torch

from dima_isaac.nn.optim import Optimiser
from dima_isaac.types import Dims, Window
from dima_isaac.world_model.config import Ends, Precision, RewardConfig
from dima_isaac.world_model.reward import RewardModel
from tests.world_model.worlds import DIMS


def window(batch: int, rows: int) -> Window:
    """Random rows; the first window begins with padding and an episode's start, the second ends in a terminal state."""
    valid, terminal, last = (torch.zeros(batch, rows, dtype=torch.bool) for _ in range(3))
    valid[:] = True
    valid[0, :1] = False
    terminal[1, -1] = last[1:, -1] = True  # later ones in a time-out
    state, action = torch.randn(batch, rows, DIMS.state), torch.randn(batch, rows, DIMS.agents, DIMS.action)
    return Window(state, action, 5.0 + 3.0 * torch.randn(batch, rows), terminal, valid, last)


@pytest.mark.parametrize("ends", Ends)
@pytest.mark.parametrize("normalise", [True, False])
def test_the_loss_is_that_of_the_step_that_arrives(monkeypatch, normalise, ends):
    torch.manual_seed(0)
    model, rows = RewardModel(RewardConfig(normalise=normalise, ends=ends), DIMS, Precision.fp32), window(3, 4)
    guess, logit = torch.randn(3, 3), torch.randn(3, 3)
    monkeypatch.setattr(model, "_outputs", lambda *_: (guess, logit))
    _, metrics = model.loss(None, rows, torch.Generator())

    counted = [(b, t) for b in range(3) for t in range(1, 4) if not (b == 0 and t == 1)]  # no step led to a first row
    seen = torch.stack([rows.reward[at] for at in counted])
    mean, std = (seen.mean(), seen.var(unbiased=False).sqrt()) if normalise else (torch.tensor(0.0), torch.tensor(1.0))
    miss, end = [], []
    for b, t in counted:
        error = abs(float(guess[b, t - 1] - (rows.reward[b, t] - mean) / std))
        miss.append(0.5 * error**2 if error < 1 else error - 0.5)
        going = 1 / (1 + math.exp(-float(logit[b, t - 1])))
        over = t == 3 and (b == 1 or (b == 2 and ends is not Ends.task))
        end.append(-math.log(1 - going if over else going))
    assert metrics["world/reward"].item() == pytest.approx(sum(miss) / len(miss), rel=1e-3)
    assert metrics["world/end"].item() == pytest.approx(sum(end) / len(end), rel=1e-5)
    reward, cont = model.predict(None, rows.state, rows.action[:, :-1], torch.Generator().manual_seed(0))
    torch.testing.assert_close(reward, guess * std + mean, rtol=1e-3, atol=1e-3)
    if ends is Ends.drawn:
        draw = torch.bernoulli(logit.sigmoid(), generator=torch.Generator().manual_seed(0))
        assert torch.equal(cont, draw) and 0 < draw.sum() < 9
    else:
        torch.testing.assert_close(cont, logit.sigmoid())


class _Plain:
    """A target whose change and z are the states themselves."""

    input_mask = 1.0

    @staticmethod
    def normalised_change(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        return after - before

    @staticmethod
    def z(state: torch.Tensor) -> torch.Tensor:
        return state


@pytest.mark.slow
def test_a_sparse_head_finds_the_one_number_that_ends_an_episode_where_a_dense_one_overfits():
    dims = Dims(agents=1, state=60, obs=1, action=1)

    def rows(count: int) -> Window:
        state, action = torch.randn(count, 2, 60), torch.randn(count, 2, 1, 1)
        terminal = torch.stack([torch.zeros(count, dtype=torch.bool), state[:, 1, 7] > 1.5], 1)
        off = torch.zeros(count, 2, dtype=torch.bool)
        return Window(state, action, state[..., 3].clone(), terminal, ~off, terminal)

    def missed(sparsity: float) -> tuple[float, int]:
        torch.manual_seed(0)
        cfg = RewardConfig(width=32, sparsity=sparsity)
        model, known, unseen = RewardModel(cfg, dims, Precision.fp32), rows(400), rows(2000)
        optimiser = Optimiser(model.net, 3e-3, 0.0, 1.0, sparse=model.sparse)
        for _ in range(800):
            optimiser.begin()
            optimiser.step(model.loss(_Plain, known, torch.Generator())[0])
        truth = (~unseen.terminal[:, 1]).float()
        with torch.no_grad():
            _, cont = model.predict(_Plain, unseen.state, unseen.action[:, :-1], torch.Generator())
        error = float((cont[:, 0] - truth).square().mean() / truth.var())
        return error, int((model.net.net[0].weight.abs().sum(0) > 0).sum())

    (dense, all_inputs), (sparse, few) = missed(0.0), missed(2.0)
    assert all_inputs == 121 and few < 80
    assert sparse < 0.5 * dense


def test_predictions_are_those_of_the_averaged_weights():
    model, rows = RewardModel(RewardConfig(ema=0.9), DIMS, Precision.fp32), window(3, 2)

    def shaken(net: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.5)
        return model.predict(_Plain, rows.state, rows.action[:, :-1], torch.Generator())[0]

    before = model.predict(_Plain, rows.state, rows.action[:, :-1], torch.Generator())[0]
    assert torch.equal(shaken(model.net), before)
    assert not torch.equal(shaken(model.average), before)
