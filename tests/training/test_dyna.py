"""Learning from replay and dreams: what a dream becomes, when there are dreams, and that a pool is continued."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dima_isaac.config import RunConfig
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger
from dima_isaac.training import dyna as module
from dima_isaac.training.dyna import Dyna
from dima_isaac.types import Rollout
from tests.toy import toy_env
from tests.training.test_trainer import assert_same, config, dyna, trained


@pytest.fixture
def certain(monkeypatch):
    """Every skill passes."""
    monkeypatch.setattr(module, "MIN_SKILL", -float("inf"))


def with_share(share: float) -> RunConfig:
    cfg = dyna(config(240))
    return replace(cfg, train=replace(cfg.train, learn=replace(cfg.train.learn, dream_share=share)))


def untrained(folder) -> Dyna:
    torch.manual_seed(0)
    cfg = dyna(config(240))
    with RunFolder(folder) as run:
        return Dyna(cfg, run, toy_env(4, 0), toy_env(3, 1), Logger(run, cfg, 240), SimpleNamespace(stop=None))


def test_steps_of_a_dream_lead_from_state_to_state_and_count_up_to_its_end(tmp_path):
    trainer = untrained(tmp_path)
    dims = trainer.env.spec.dims
    raw = torch.randn(2, 4, dims.state)
    cont = torch.tensor([[0.9, 0.9, 0.9], [0.9, 0.1, 0.9]])
    dream = Rollout(
        obs=torch.zeros(2, 3, dims.agents, dims.obs),
        state=raw,
        x=trainer.world.target.x(raw),
        last_action=torch.zeros(2, 4, dims.agents, dims.action),
        action=torch.full((2, 3, dims.agents, dims.action), 1.5),
        logp=torch.zeros(2, 3, dims.agents),
        reward=torch.arange(6.0).view(2, 3),
        cont=cont,
    )
    steps = trainer.transitions(dream)
    torch.testing.assert_close(steps.state.view(2, 3, -1), raw[:, :-1])
    torch.testing.assert_close(steps.next_state.view(2, 3, -1), raw[:, 1:])
    torch.testing.assert_close(steps.discount.view(2, 3), trainer.cfg.agent.gamma * cont)
    assert steps.reward.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert (steps.action == 1.0).all()
    assert steps.counted.view(2, 3).tolist() == [[True, True, True], [True, True, False]]


@pytest.mark.slow
def test_a_dream_is_kept_when_the_next_one_overwrites_it(tmp_path, certain, monkeypatch):
    """As a graph's results are."""
    cfg = dyna(config(240))
    cfg = replace(cfg, train=replace(cfg.train, learn=replace(cfg.train.learn, rollouts_per_step=0.05)))  # two a round
    trainer = trained(tmp_path, cfg)
    buffer = trainer.dream(trainer.replay.sample(6, trainer.world.history))
    calls = iter((0.25, 0.75))

    def dream(start):
        value = next(calls)
        for column in vars(buffer).values():
            column.fill_(value)
        return buffer

    monkeypatch.setattr(trainer, "dream", dream)
    trainer.dream_up()
    for column in vars(trainer.pool).values():
        first, second = column.chunk(2)
        assert column.dtype == torch.bool or not torch.equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "dreamt"), [(0.0, 0), (0.5, 8), (1.0, 16)])
def test_the_share_of_dreamt_rows_is_the_configured_one(tmp_path, certain, share, dreamt):
    trainer = trained(tmp_path, with_share(share))
    trainer.dream_up()
    assert trainer.horizon == 3 and trainer.pool.reward.shape == (18,)
    trainer.pool.reward.fill_(1e6)
    rows = trainer.experience()
    assert rows.reward.shape == (16,) and (rows.reward == 1e6).sum() == dreamt
    critics, actor = (part == 1e6 for part in rows.reward.chunk(2))
    assert critics.any() == actor.any(), "the actor learns from the second half alone"


@pytest.mark.slow
def test_no_dreams_are_made_for_a_share_of_0(tmp_path, certain, monkeypatch):
    monkeypatch.setattr(Dyna, "dream_up", lambda self: pytest.fail("dreamt"))
    assert trained(tmp_path, with_share(0.0)).horizon == 3


@pytest.mark.slow
def test_no_dreams_while_their_skill_on_held_out_rows_is_low(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MIN_SKILL", 2.0)  # nothing is better than perfect
    monkeypatch.setattr(Dyna, "dream_up", lambda self: pytest.fail("dreamt"))
    assert trained(tmp_path, dyna(config(240))).horizon == 0


@pytest.mark.slow
def test_a_stop_between_two_rounds_continues_with_the_same_dreams(tmp_path, certain):
    whole = trained(tmp_path / "whole", dyna(config(240)))
    trained(tmp_path / "parts", dyna(config(220)))  # a round is 40 steps
    assert_same(whole, trained(tmp_path / "parts", dyna(config(240, "auto"))))


def test_skill_is_measured_on_rows_that_no_update_has_used(tmp_path, monkeypatch):
    trainer, tested = untrained(tmp_path), []
    monkeypatch.setattr(trainer.skill, "update", lambda world, windows: tested.extend(windows) or {})
    with RunFolder(tmp_path) as run:
        trainer.run_folder = run
        for _ in range(20):
            trainer.collect()
        trainer.fitted_steps = trainer.env_steps
        for _ in range(6):
            trainer.collect()
        trainer.update_world_model()
    unseen = trainer.replay.state[20:26].flatten(0, 1)
    newest = trainer.replay.state[25]
    assert len(tested) == 3 and [w.state.shape[1] - trainer.world.history for w in tested] == [1, 5, 15]
    for window in tested[:2]:  # of 1 and 5 steps
        steps = slice(trainer.world.history, None)
        assert all((unseen == row).all(1).any() for row in window.state[:, steps][window.valid[:, steps]])
    assert all((newest == row).all(1).any() for row in tested[2].state[:, -1]), "of 15 there are not as many"


def test_the_world_model_is_weighted_by_the_value_in_its_own_units(tmp_path, monkeypatch):
    """(dV/dx)^2 = (dV/ds)^2 (ds/dx)^2, and a state's deviation is ds/dx times sigma_data."""
    trainer, given = trained(tmp_path, dyna(config(120))), []
    gradient = torch.arange(1.0, 1.0 + trainer.env.spec.dims.state)
    monkeypatch.setattr(trainer.agent, "value_gradient", lambda states: gradient)
    monkeypatch.setattr(trainer.world, "weigh_by_value", given.append)
    trainer.update_policy()
    std = trainer.world.target.state_scale()[1]
    torch.testing.assert_close(given[0], gradient * (std / 0.5).square())
    raw = torch.randn(5, gradient.shape[0])
    torch.testing.assert_close(trainer.world.target.raw(trainer.world.target.x(raw)), raw)


@pytest.mark.parametrize("horizon", [1, 2, 3, 5])
def test_no_dream_is_longer_than_what_holds(tmp_path, horizon, certain):
    trainer = trained(tmp_path, dyna(config(120)))
    trainer.horizon = horizon
    lengths, dream = [], trainer.dream
    trainer.dream = lambda start: lengths.append(dream(start)) or lengths[-1]
    trainer.dream_up()
    assert lengths and all(1 <= found.reward.shape[1] <= horizon for found in lengths)


def test_a_rank_learns_from_its_share_of_a_batch(tmp_path, monkeypatch):
    alone = untrained(tmp_path / "alone").agent.rows_per_update
    monkeypatch.setattr("dima_isaac.training.loop.ranks.count", lambda: 2)
    monkeypatch.setattr("dima_isaac.training.loop.ranks.from_first", lambda work: work())
    assert untrained(tmp_path / "shared").agent.rows_per_update == alone // 2
