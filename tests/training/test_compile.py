"""``compile`` changes how fast a run learns in seconds, never what it learns."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from dima_isaac.agent.config import PpoConfig
from dima_isaac.config import RunConfig
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger
from dima_isaac.run.signals import Signals
from dima_isaac.training.trainer import Trainer
from dima_isaac.world_model.config import DecoderKind, RewardConfig, RewardKind
from tests.tape import use_tapes
from tests.toy import toy_env
from tests.training.test_trainer import config, flat

UPDATES = 100
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def variants():
    """Every part that a graph could get wrong: counters, warm-up, averages, codebooks, dropout, minibatches."""
    base = config(10**6, eval_every=0)
    learn = replace(base.train.learn, dynamics_per_step=0.125, reward_per_step=0.125, decoder_per_step=0.125,
                    rollouts_per_step=0.125, horizon=2)  # fmt: skip
    agent = replace(base.agent, ppo=PpoConfig(epochs=1))
    base = replace(base, train=replace(base.train, learn=learn, probe_every=0), agent=agent)
    world = base.world_model
    optim = replace(world.denoiser.optim, warmup=40)
    yield "default", base
    denoiser = replace(world.denoiser, optim=optim, ema=0.99)
    reward = RewardConfig(width=16, kind=RewardKind.gpt, double_step=True,
                          optim=replace(world.reward.optim, warmup=20))  # fmt: skip
    changed = replace(world, denoiser=denoiser, reward=reward, decoder=DecoderKind.vq)
    agent = replace(agent, ppo=PpoConfig(epochs=1, minibatches=2))
    yield "counters", replace(base, world_model=changed, agent=agent)


def learnt(folder, cfg: RunConfig, device: torch.device) -> tuple[Trainer, list[dict]]:
    cfg = replace(cfg, rl_device=device.type, sim_device=device.type)
    torch.manual_seed(0)
    with RunFolder(folder) as run:
        logger = Logger(run, cfg, cfg.max_env_steps)
        env = toy_env(4, 0, device=device)
        trainer = Trainer(cfg, run, env, toy_env(3, 1, device=device), logger, Signals())
        while trainer.schedule.updates_due["rollouts"].done < UPDATES:
            trainer.collect()
            if trainer.schedule.learning_due(trainer.env_steps):
                trainer.update_world_model()
                trainer.update_policy()
                trainer.log_metrics()
        logger.close()
        rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return trainer, rows


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cfg", [pytest.param(cfg, id=name) for name, cfg in variants()])
def test_a_hundred_updates_are_the_same(tmp_path, cfg, device, monkeypatch):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    use_tapes(monkeypatch)
    near = 1e-4 if device == "cpu" else 1e-2  # a GPU may choose other kernels inside a graph, and sums other orders
    plain, expected = learnt(tmp_path / "plain", replace(cfg, compile=False), torch.device(device))
    played, got = learnt(tmp_path / "played", replace(cfg, compile=True), torch.device(device))
    done = [plain.schedule.updates_due[kind].done for kind in ("dynamics", "reward", "rollouts")]
    assert min(done) >= UPDATES
    assert len(expected) == len(got) > 5
    for one, two in zip(expected, got, strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            if not name.startswith(("time/", "wall_time")):
                same = two[name] is None if value is None else two[name] == pytest.approx(value, rel=near, abs=near)
                assert same, (one["env_steps"], name, value, two[name])
    weights, others = flat(plain.world.state_dict()), flat(played.world.state_dict())
    assert all(torch.allclose(value, others[name], rtol=10 * near, atol=10 * near) for name, value in weights.items())
    assert played.world.fit_dynamics._replays and played.dream._replays and played.agent.update._replays
