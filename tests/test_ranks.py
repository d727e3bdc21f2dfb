"""Two ranks with half of the rows each compute what one process computes of all of them."""

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dima_isaac import ranks
from dima_isaac.agent.config import ActorConfig, AgentConfig, CriticConfig, LearnerKind, PpoConfig, SacConfig
from dima_isaac.agent.critic import ValueNorm
from dima_isaac.agent.learner import build_learner
from dima_isaac.agent.returns import ReturnScale
from dima_isaac.config import RunConfig, per_rank
from dima_isaac.errors import UsageError, WorkerError
from dima_isaac.nn.moments import Moments
from dima_isaac.nn.optim import optimizer_step
from dima_isaac.nn.ridge import Ridge
from dima_isaac.types import Dims, Rollout, Transitions, Window
from dima_isaac.world_model.held_out import HeldOut
from dima_isaac.world_model.paper.decoder import VectorQuantiser
from tests.agent.games import game
from tests.several import on_ranks
from tests.world_model.worlds import DIMS, build, small

ROWS = 48


def mine(rows: torch.Tensor) -> torch.Tensor:
    return rows.chunk(ranks.count())[ranks.rank()].clone()


def draws_of_all(original: Callable[..., torch.Tensor], shape_at: int) -> Callable[..., torch.Tensor]:
    """``original``, a drawing function of torch's, as one that draws for all ranks and returns this one's share."""

    def draw(*args: Any, **kw: Any) -> torch.Tensor:
        if "generator" not in kw:
            return original(*args, **kw)
        nested = isinstance(args[shape_at], tuple)
        shape = list(args[shape_at] if nested else args[shape_at:])
        if ROWS // ranks.count() not in shape:
            return original(*args, **kw)
        axis = shape.index(ROWS // ranks.count())
        shape[axis] = ROWS
        whole = original(*args[:shape_at], tuple(shape), **kw)
        return whole.chunk(ranks.count(), axis)[ranks.rank()].clone()

    return draw


def exchange() -> dict[str, Any]:
    me = ranks.rank()
    one, two = ranks.total(torch.tensor(1.0 + me), torch.tensor([2.0, me]))
    average = [torch.tensor([2.0 * me]), torch.tensor(3.0)]
    ranks.average_(average)
    try:
        ranks.from_first(lambda: 1 / 0 if me else refuse())
    except UsageError:
        ended = "error"
    except SystemExit as end:
        ended = end.code
    order: list[int] = []
    ranks.after_first(lambda: order.append(me))
    return {
        "total": [one, two],
        "average": average,
        "mean": ranks.mean(torch.tensor([1.0, 4.0 * me])),
        "maximum": ranks.maximum(torch.tensor([1.0 * me, -1.0 * me])),
        "rows": ranks.concatenated(torch.full((2, 1), me)),
        "agreed": [ranks.agreed(stop) for stop in (None, "SIGTERM" if me else None, "SIGINT" if me else "SIGUSR1")],
        "gathered": ranks.gathered({"rank": me, "tensor": torch.tensor(me)}),
        "first": ranks.from_first(lambda: {"rank": me}),
        "ended": ended,
        "seed": ranks.seed(5),
    }


def refuse() -> None:
    raise UsageError("no")


@pytest.mark.slow
def test_messages():
    first, second = on_ranks(exchange, 2)
    for got in (first, second):
        assert [value.tolist() for value in got["total"]] == [3.0, [4.0, 1.0]]
        assert [value.tolist() for value in got["average"]] == [[1.0], 3.0]
        assert got["mean"].tolist() == [1.0, 2.0] and got["maximum"].tolist() == [1.0, 0.0]
        assert got["rows"].flatten().tolist() == [0, 0, 1, 1] and got["first"] == {"rank": 0}
        assert got["agreed"] == [None, "SIGTERM", "SIGUSR1"]
    assert [own["rank"] for own in first["gathered"]] == [0, 1] and [own["rank"] for own in second["gathered"]] == [1]
    assert first["ended"] == "error" and second["ended"] == UsageError.exit_code
    assert first["seed"] == 5 != second["seed"] < 2**32


def outlive() -> list[Any]:
    ranks.total(torch.ones(3))
    if ranks.rank() == 1:
        time.sleep(0.5)  # gloo aborts a process whose peer goes while the two are still connecting
        os._exit(0)
    with pytest.raises(WorkerError, match="rank 0 has lost another rank"):
        ranks.total(torch.ones(3))
    return [ranks.lost(), ranks.count(), ranks.total(torch.ones(3))[0], ranks.gathered("own"), ranks.from_first(int)]


@pytest.mark.slow
def test_a_rank_left_alone_returns_its_own_values():
    survivor, gone = on_ranks(outlive, 2)
    assert gone is None and survivor[:2] == [True, 2] and survivor[2].tolist() == [1.0] * 3
    assert survivor[3:] == [["own"], 0]


def learn() -> dict[str, Any]:
    """Statistics, then updates of the world model and of PPO, from the same rows and draws on any number of ranks."""
    torch.randn, torch.rand = draws_of_all(torch.randn, 0), draws_of_all(torch.rand, 0)
    torch.randint = draws_of_all(torch.randint, 2)
    source = torch.Generator().manual_seed(7)
    normal, uniform = torch.normal, lambda *shape: torch.empty(shape).uniform_(generator=source)

    def rows(*shape: int) -> torch.Tensor:
        return mine(normal(0.0, 1.0, (ROWS, *shape), generator=source))

    def flags(share: float, *shape: int) -> torch.Tensor:
        return mine(uniform(ROWS, *shape) < share)

    out: dict[str, Any] = {}
    moments, ridge, value, held = Moments(3), Ridge(3, 2, 0.9, 1e-4), ValueNorm(0.9), HeldOut(torch.ones(2))
    scale = ReturnScale(0.9, 5.0)
    torch.manual_seed(0)
    codes = VectorQuantiser(4, 3, decay=0.5)
    for _ in range(3):
        inputs = rows(3)
        moments.update(inputs + 2.0, uniform(ROWS)[: len(inputs)] if ranks.count() == 1 else mine(uniform(ROWS)))
        ridge.update(inputs, rows(2), flags(0.7).float())
        value.update(rows(), flags(0.5).float())
        metrics = held.update(rows(2), rows(2), flags(0.5), torch.ones(2), torch.ones(2))
        scale.update(rows(), flags(0.2))
        codes(rows(3))
    ridge.solve()
    out["statistics"] = {
        name: dict(module.state_dict()) for name, module in
        (("moments", moments), ("ridge", ridge), ("value", value), ("held", held), ("scale", scale), ("codes", codes))
    } | {"held_metrics": metrics}  # fmt: skip

    layer = nn.Linear(3, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(0.0)
    adam = torch.optim.Adam(layer.parameters(), lr=0.1, fused=True)
    weight = flags(0.5).float()
    loss = (layer(rows(3))[:, 0].square() * weight).sum() / ranks.mean(weight.sum())
    out["step"] = [optimizer_step(adam, layer.parameters(), loss, 0.5), layer.weight.detach(), loss.detach()]

    world = build(small(error_scale=0.6, value_weight=0.5, unroll=2))
    world.generator.manual_seed(3)
    seen = []
    for _ in range(3):
        length = world.window
        start = uniform(ROWS, 1) * 3 - 1
        valid = mine(torch.arange(length) >= start)
        columns = rows(length, DIMS.state), rows(length, 2, 2), rows(length), flags(0.1, length)
        window = Window(*columns, valid, last=torch.zeros_like(valid))
        world.track(window.state[:, -1])
        past = window.rows(0, world.history + 1)
        short = window.rows(0, 2)
        seen += [world.update_held_out(past), world.update_dynamics(window), world.update_reward(short)]
        world.weigh_by_value(rows(DIMS.state).square().mean(0))
    out["world"], out["world_metrics"] = dict(world.state_dict()), seen

    dims = Dims(agents=2, state=3, obs=3, action=2)
    ppo = PpoConfig(minibatches=1, desired_kl=6.4)  # what these rows give, so that the rate moves by no bound
    cfg = AgentConfig(LearnerKind.ppo, ActorConfig(hidden=[8]), CriticConfig(hidden=[8]), ppo=ppo)
    torch.manual_seed(0)
    agent = build_learner(cfg, game(dims), torch.device("cpu"))
    seen = []
    for _ in range(2):
        agent.actor.inputs.track(rows(2, 3))
        dream = Rollout(
            rows(4, 2, 3),
            rows(5, 3),
            rows(5, 3),
            rows(5, 2, 2),
            rows(4, 2, 2),
            rows(4, 2),
            rows(4),
            mine(uniform(ROWS, 4)),
        )
        seen.append(agent.update(dream))
    out["agent"], out["agent_metrics"] = dict(agent.state_dict()), seen
    return out


def flat(tree: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        return {prefix: tree}
    return {key: value for name, branch in items for key, value in flat(branch, f"{prefix}/{name}").items()}


@pytest.mark.slow
def test_half_of_the_rows_each_give_the_same_losses_and_weights():
    (whole,), halves = on_ranks(learn, 1), on_ranks(learn, 2)
    whole, first, second = (flat(found) for found in (whole, *halves))
    assert whole.keys() == first.keys() and len(whole) > 60
    for name, value in whole.items():
        if "metrics" in name:  # the logger's means
            torch.testing.assert_close((first[name] + second[name]) / 2, value, rtol=1e-3, atol=1e-5, msg=name)
        else:
            assert torch.equal(first[name], second[name]), f"ranks differ in {name}"
            torch.testing.assert_close(first[name], value, rtol=1e-3, atol=2e-5, msg=name)


def learn_off_policy() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    dims = Dims(agents=2, state=3, obs=3, action=2)
    cfg = AgentConfig(LearnerKind.sac, ActorConfig(hidden=[8]), CriticConfig(hidden=[8]), sac=SacConfig())
    agent = build_learner(cfg, game(dims), torch.device("cpu"), seed=ranks.seed(0))
    torch.manual_seed(ranks.rank())
    for _ in range(3):
        state = torch.randn(16, 3)
        agent.update(Transitions(state, torch.randn(16, 2, 2), torch.randn(16), torch.full((16,), 0.9), state + 0.1,
                                 torch.rand(16) < 0.8))  # fmt: skip
    return dict(agent.state_dict())


@pytest.mark.slow
def test_batch_normalised_critics_stay_the_same_on_all_ranks():
    first, second = on_ranks(learn_off_policy, 2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any("running_var" in name for name in first)


def test_a_rank_does_its_share():
    cfg = RunConfig(num_envs=64)
    share = per_rank(cfg, 3)
    assert per_rank(cfg, 1) is cfg
    assert per_rank(cfg, 2).num_envs == 32 and per_rank(cfg, 2).replay.capacity == cfg.replay.capacity // 2
    assert share.train.learn.dynamics_batch == 64 and share.train.learn.reward_batch == 86  # 256 / 3, rounded up
    assert share.train.learn.dreams == 200 and share.agent.sac.batch == 86 and cfg.train.learn.dreams == 600


@pytest.mark.parametrize(("quota", "cores"), [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 6), ("", 6)])
def test_cores_are_those_of_the_affinity_and_of_the_container(quota, cores, monkeypatch, tmp_path):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(6))
    monkeypatch.setattr(ranks, "_QUOTA", tmp_path / "cpu.max")
    if quota:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert ranks.cores() == cores
    monkeypatch.setattr(ranks, "local_count", lambda: 2)
    assert ranks.cores() == max(1, cores // 2)


def test_a_process_of_its_own_keeps_what_it_has():
    value = torch.tensor(2.0)
    assert ranks.count() == 1 and ranks.rank() == 0 and ranks.seed(9) == 9 and not ranks.lost()
    assert ranks.total(value, value) == (value, value) and ranks.mean(value) is value
    assert ranks.concatenated(value) is value and ranks.maximum(value) is value and ranks.gathered(1) == [1]
    assert ranks.agreed("SIGTERM") == "SIGTERM" and ranks.from_first(lambda: 3) == 3
