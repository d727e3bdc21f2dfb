"""Between two logged rows nothing in the loop waits for the device."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dima_isaac.envs import noise
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger
from dima_isaac.training.build import loop_class
from dima_isaac.training.dyna import Dyna
from dima_isaac.training.trainer import Trainer
from dima_isaac.world_model.config import DecoderKind
from tests.guard import SynchronisationError, guard, no_synchronisation
from tests.tape import use_tapes
from tests.toy import toy_env
from tests.training.test_trainer import config, dyna

WAITS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool((x > 0).any()),
    "float": lambda x: float(x[0]),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: torch.nonzero(x > 0),
    "where": lambda x: torch.where(x > 0),
    "mask read": lambda x: x[x > 0],
    "mask write": lambda x: x.clone().index_put_((x > 0,), x.new_zeros(())),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "host list": lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
    "another device": lambda x: x.to("meta"),
    "cholesky": lambda x: torch.linalg.cholesky(torch.outer(x, x) + 9.0 * torch.eye(3)),
    "slice by number": lambda x: x[: x.argmax()],
}


@pytest.mark.parametrize("name", WAITS)
def test_the_guard_detects_synchronisation(name):
    x = torch.tensor([1.0, -1.0, 2.0])
    with pytest.raises(SynchronisationError), no_synchronisation():
        WAITS[name](x)


def test_the_guard_lets_the_rest_pass():
    x = torch.tensor([1.0, -1.0, 2.0])
    with no_synchronisation():
        y = torch.where(x > 0, x, 0.0).masked_fill(x > 1, 0.5).index_select(0, torch.arange(3))
        y = y[torch.randint(3, (5,))].cumsum(0).to(torch.float64)
        assert y.shape == (5,)


def _watched(folder, cfg, device: torch.device) -> Trainer:
    torch.manual_seed(0)
    with RunFolder(folder) as run:
        logger = Logger(run, cfg, cfg.max_env_steps)
        env = toy_env(4, 0, device=device, on_host=False)
        trainer = loop_class(cfg)(cfg, run, env, toy_env(3, 1, device=device), logger, SimpleNamespace(stop=None))
        for phase in ("collect", "update_world_model", "update_policy", *_OF_DYNA * isinstance(trainer, Dyna)):
            guard(trainer, phase, device)
        trainer.run()
        logger.close()
    return trainer


_OF_DYNA = ("dream_up", "experience")


def _loops():
    base = config(240, eval_every=0)
    base = replace(base, train=replace(base.train, probe_every=0))
    world = base.world_model
    yield "default", base
    warmup = replace(world.denoiser, optim=replace(world.denoiser.optim, warmup=10))
    yield "captured", replace(base, compile=True, world_model=replace(world, denoiser=warmup))
    yield "dyna", dyna(base)
    yield "vq", replace(base, world_model=replace(world, decoder=DecoderKind.vq))
    yield "minibatches", replace(base, agent=replace(base.agent, ppo=replace(base.agent.ppo, minibatches=2)))


@pytest.mark.slow
@pytest.mark.parametrize("cfg", [pytest.param(cfg, id=name) for name, cfg in _loops()])
def test_the_loop_never_waits(tmp_path, cfg, monkeypatch):
    monkeypatch.setattr(noise, "_torch_device", lambda tensor: tensor.device)  # as for tensors of a GPU
    monkeypatch.setattr("dima_isaac.training.dyna.MIN_SKILL", -float("inf"))
    use_tapes(monkeypatch)
    trainer = _watched(tmp_path / "run", cfg, torch.device("cpu"))
    assert trainer.env_steps >= cfg.max_env_steps
    assert trainer.schedule.updates_due["dynamics"].done > 0
    assert trainer.horizon if isinstance(trainer, Dyna) else trainer.schedule.updates_due["rollouts"].done


@pytest.mark.gpu
@pytest.mark.parametrize("cfg", [pytest.param(cfg, id=name) for name, cfg in _loops()])
def test_the_loop_never_waits_for_a_gpu(tmp_path, cfg):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    device = torch.device("cuda")
    _watched(tmp_path / "run", replace(cfg, rl_device="cuda", sim_device="cuda"), device)
