"""The loop: continued equals uninterrupted, measuring changes nothing, ratios hold, failed worlds are not stored."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dima_isaac import ranks
from dima_isaac.agent.config import (
    ActorConfig,
    AgentConfig,
    CriticConfig,
    ExploreConfig,
    LearnerKind,
    PpoConfig,
    SacConfig,
)
from dima_isaac.config import Algo, RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import CheckpointError, DivergenceError, SimulationError, WorkerError
from dima_isaac.replay.config import ReplayConfig
from dima_isaac.run import checkpoint
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger
from dima_isaac.run.signals import Signals
from dima_isaac.training.build import loop_class
from dima_isaac.training.config import CheckpointConfig, EvalConfig, LearnConfig, TrainConfig
from dima_isaac.training.loop import TrainingLoop
from dima_isaac.training.trainer import Trainer
from dima_isaac.world_model.config import DenoiserConfig, RewardConfig, WorldModelConfig
from dima_isaac.world_model.world_model import WorldModel
from tests.several import on_ranks
from tests.tape import use_tapes
from tests.toy import toy_env

LEARN = LearnConfig(start=40, behaviour_start=80, round=40, dynamics_per_step=0.05, dynamics_batch=8,
                    reward_per_step=0.05, reward_batch=8, rollouts_per_step=0.025, dreams=6, horizon=3)  # fmt: skip


@pytest.fixture(autouse=True)
def every_skill_passes(monkeypatch):
    """So that learning from replay and dreams has dreams, however little so small a model has learnt."""
    monkeypatch.setattr("dima_isaac.training.dyna.MIN_SKILL", -float("inf"))


def config(steps: int, checkpoint: str = "", eval_every: int = 80) -> RunConfig:
    train = TrainConfig(LEARN, EvalConfig(eval_every, 3), CheckpointConfig(80, 2), probe_every=120)
    return RunConfig(
        task={"name": "Toy"}, num_envs=4, rl_device="cpu", sim_device="cpu", max_env_steps=steps, checkpoint=checkpoint,
        world_model=WorldModelConfig(
            denoiser=DenoiserConfig(width=16, blocks=1), reward=RewardConfig(width=16), value_weight=0.5),
        agent=AgentConfig(LearnerKind.ppo, ActorConfig(hidden=[16]), CriticConfig(hidden=[16]), ppo=PpoConfig(epochs=2),
            explore=ExploreConfig(max_std=1.0)),
        replay=ReplayConfig(capacity=400), train=train,
    )  # fmt: skip


def off_policy(cfg: RunConfig) -> RunConfig:
    sac = SacConfig(critic_steps_per_step=0.1, batch=8, start=40)
    return replace(cfg, algo=Algo.sac, agent=replace(cfg.agent, learner=LearnerKind.sac, sac=sac))


def dyna(cfg: RunConfig) -> RunConfig:
    return replace(off_policy(cfg), algo=Algo.dima)


class StopAfter:
    """Signals, one of which comes when ``stop`` has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    @property
    def stop(self) -> str | None:
        self.left -= 1
        return "SIGTERM" if self.left < 0 else None


def trained(folder, cfg: RunConfig, envs: int = 4, signals: object = None) -> TrainingLoop:
    torch.manual_seed(0)
    with RunFolder(folder) as run:
        logger = Logger(run, cfg, cfg.max_env_steps)
        signals = signals or SimpleNamespace(stop=None)
        trainer = loop_class(cfg)(cfg, run, toy_env(envs, 0), toy_env(3, 1), logger, signals)
        trainer.run()
        logger.close()
    return trainer


def flat(tree, prefix="") -> dict:
    if isinstance(tree, dict):
        return {k: v for name, branch in tree.items() for k, v in flat(branch, f"{prefix}/{name}").items()}
    if isinstance(tree, list):
        return flat(dict(enumerate(tree)), prefix)
    return {prefix: tree}


def assert_same(one: Trainer, other: Trainer) -> None:
    a, b = (flat(one.persistence.state_dict()), flat(other.persistence.state_dict()))
    assert a.keys() == b.keys()
    for name, value in a.items():
        same = torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name]
        assert same, name


@pytest.mark.parametrize("envs", [1, 2])
def test_a_learning_phase_waits_for_the_only_environment_s_episode(tmp_path, monkeypatch, envs):
    """Episodes of 20 steps and a tick each for the reset end at 20, 41, 62, ... steps."""
    phases = []
    monkeypatch.setattr(Trainer, "update_world_model", lambda self: phases.append(self.env_steps))
    monkeypatch.setattr(Trainer, "update_policy", lambda self: None)
    cfg = config(130, eval_every=0)
    cfg.train = replace(cfg.train, learn=replace(LEARN, round=30, whole_episodes=True), probe_every=0)
    cfg.agent.explore.max_std = 0.0  # no action ends an episode early
    trained(tmp_path / "run", cfg, envs)
    assert phases == ([41, 83, 104] if envs == 1 else [40, 70, 100, 130])


@pytest.mark.slow
@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("learner", [lambda cfg: cfg, off_policy, dyna], ids=["ppo", "sac", "dyna"])
def test_continued_equals_uninterrupted_bit_for_bit(tmp_path, learner, captured, monkeypatch):
    use_tapes(monkeypatch)
    cfg = lambda steps, which="": replace(learner(config(steps, which)), compile=captured)
    whole = trained(tmp_path / "whole", cfg(480))
    trained(tmp_path / "parts", cfg(240))
    torch.rand(7)  # whatever happens in between
    assert_same(whole, trained(tmp_path / "parts", cfg(480, "auto")))
    lines = [(tmp_path / name / "metrics.jsonl").read_text().count('"agent/policy"') for name in ("whole", "parts")]
    assert lines[0] == lines[1] > 5


@pytest.mark.slow
@pytest.mark.parametrize("looks", [61, 79])
@pytest.mark.parametrize("learner", [lambda cfg: cfg, off_policy, dyna], ids=["ppo", "sac", "dyna"])
def test_interrupted_anywhere_and_continued_equals_uninterrupted(tmp_path, learner, looks):
    """Between two updates, in an evaluation, in a probe: what was not done is done later, and nothing twice."""
    whole = trained(tmp_path / "whole", learner(config(480)))
    parts, signals = 0, StopAfter(-1)
    while signals.left < 0:
        signals = StopAfter(looks)
        torch.manual_seed(parts)
        last = trained(tmp_path / "parts", learner(config(480, "auto")), signals=signals)
        parts += 1
    assert parts > 2
    assert_same(whole, last)


def stopped_and_continued(folder: str, kind: str, looks: int) -> list[bool]:
    """Whether each run but the last was left in the middle of a round; one rank or the other is sent a signal."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr("dima_isaac.training.dyna.MIN_SKILL", -float("inf"))

    def train(name: str, signals: object) -> TrainingLoop:
        torch.manual_seed(0)
        cfg = {"ppo": lambda cfg: cfg, "dyna": dyna}[kind](config(480, "auto"))
        with RunFolder(Path(folder) / name, lock=ranks.rank() == 0) as run:
            logger = Logger(run, cfg, cfg.max_env_steps, show=False)
            trainer = loop_class(cfg)(cfg, run, toy_env(2, ranks.rank()), toy_env(3, 1), logger, signals)
            trainer.run()
            logger.close()
        return trainer

    never, left = SimpleNamespace(stop=None), []
    whole = train("whole", never)
    while (last := train("parts", StopAfter(looks) if ranks.rank() == len(left) % 2 else never)).stop:
        left.append(last.unfinished())
    assert_same(whole, last)
    return left


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ppo", "dyna"])
def test_ranks_stop_in_the_middle_of_a_round_and_continue_as_one(tmp_path, kind):
    first, second = on_ranks(stopped_and_continued, 2, str(tmp_path), kind, 67)
    assert first == second and len(first) > 2 and any(first)


@pytest.mark.slow
@pytest.mark.parametrize("learner", [lambda cfg: cfg, dyna], ids=["ppo", "dyna"])
def test_a_signal_ends_a_dream_at_once_and_a_continuation_dreams_it_anew(tmp_path, monkeypatch, learner):
    whole, dreamt = trained(tmp_path / "whole", learner(config(320))), []
    step = WorldModel.step

    def signalled(self, context, action, generator=None, errors=True):
        if errors:  # no probe
            dreamt.append(action)
            if len(dreamt) == 5:
                os.kill(os.getpid(), signal.SIGTERM)
        return step(self, context, action, generator, errors)

    monkeypatch.setattr(WorldModel, "step", signalled)
    with Signals() as signals:
        left = trained(tmp_path / "parts", learner(config(320, "auto")), signals=signals)
    assert len(dreamt) == 5 and signals.stop == "SIGTERM" and left.env_steps < 320
    assert_same(whole, trained(tmp_path / "parts", learner(config(320, "auto"))))


@pytest.mark.slow
def test_a_lost_worker_costs_no_step_that_was_learnt_from(tmp_path):
    """A worker lost for good: everything up to the last whole step is saved, and a continuation starts from there."""
    cfg = config(240)
    with RunFolder(tmp_path / "run") as run:
        logger = Logger(run, cfg, cfg.max_env_steps)
        trainer = Trainer(cfg, run, toy_env(4, 0), toy_env(3, 1), logger, SimpleNamespace(stop=None))
        step = trainer.env.step

        def lost(action):
            if trainer.env_steps == 220:
                raise WorkerError("worker 0 died")
            return step(action)

        trainer.env.step = lost
        with pytest.raises(WorkerError, match="worker 0 died"):
            trainer.run()
        logger.close()
    saved = checkpoint.read(tmp_path / "run" / "checkpoints" / "last.pt")
    assert saved["env_steps"] == 220 and saved["replay"]["added"] == 220 // 4
    assert trained(tmp_path / "run", config(240, "auto")).env_steps == 240


@pytest.mark.slow
@pytest.mark.parametrize("learner", [lambda cfg: cfg, off_policy, dyna], ids=["ppo", "sac", "dyna"])
def test_a_run_continues_without_lost_replay_rows(tmp_path, learner):
    before = trained(tmp_path, learner(config(160)))
    for path in (tmp_path / "checkpoints").glob("replay_*"):
        path.unlink()
    after = trained(tmp_path, learner(config(240, "auto")))
    assert before.replay.size == 40 and after.replay.size == 20 and after.env_steps == 240
    assert torch.isfinite(after.agent.mode(after.step.obs)).all()


def gone_at_100(folder, cfg: RunConfig, back_at: int = 0) -> Trainer:
    """A run whose folder is moved away at 100 environment steps, and ``back_at`` another number."""
    away = folder.with_name("away")
    with RunFolder(folder) as run:
        torch.manual_seed(0)
        logger = Logger(run, cfg, cfg.max_env_steps)
        trainer = Trainer(cfg, run, toy_env(4, 0), toy_env(3, 1), logger, SimpleNamespace(stop=None))
        collect = trainer.collect

        def watched() -> None:
            collect()
            if trainer.env_steps == 100:
                folder.rename(away)
            if trainer.env_steps == back_at:
                away.rename(folder)

        trainer.collect = watched
        trainer.run()
        logger.close()
    return trainer


@pytest.mark.slow
def test_a_run_whose_folder_is_gone_goes_on_beside_it(tmp_path, capsys):
    """Saves are due at 80, 160, 240 and 320; the second one that finds no folder makes one."""
    (tmp_path / "r").mkdir()
    moved = gone_at_100(tmp_path / "r", config(320))
    said = capsys.readouterr().out
    beside = tmp_path / "r-rescued"
    assert said.count("is gone") == 2 and f"goes on in {beside}" in said and moved.run_folder.path == beside
    assert not (tmp_path / "r").exists()
    assert [path.name for path in checkpoint.steps_in(beside / "checkpoints")] == ["step_240.pt", "step_320.pt"]
    lines = [json.loads(line) for line in (beside / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["env_steps"] == 40 and lines[-1]["env_steps"] == 320
    assert_same(moved, trained(beside, config(320, "auto")))


@pytest.mark.slow
def test_a_folder_that_comes_back_is_taken_again(tmp_path, capsys):
    gone_at_100(tmp_path / "r", config(240), back_at=200)
    assert capsys.readouterr().out.count("is gone") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    names = [path.name for path in checkpoint.steps_in(tmp_path / "r" / "checkpoints")]
    assert names == ["step_80.pt", "step_240.pt"]


@pytest.mark.slow
def test_evaluation_and_probes_leave_no_trace(tmp_path):
    seldom = config(240, eval_every=0)
    seldom.train.probe_every = 0
    often, never = trained(tmp_path / "a", config(240, eval_every=40)), trained(tmp_path / "b", seldom)
    a, b = flat(often.world.state_dict()), flat(never.world.state_dict())
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(often.step.state, never.step.state)


@pytest.mark.slow
def test_update_ratios_do_not_depend_on_the_number_of_environments(tmp_path):
    done = []
    for envs in (2, 4, 8):
        cfg = replace(config(480), num_envs=envs)
        trainer = trained(tmp_path / str(envs), cfg, envs)
        done.append({name: ratio.done for name, ratio in trainer.schedule.updates_due.items()})
    assert done[0] == done[1] == done[2] and done[0]["dynamics"] == 24 and done[0]["rollouts"] == 11


def test_a_failed_environment_never_enters_the_replay(tmp_path):
    cfg = config(40)
    with RunFolder(tmp_path) as run:
        logger = Logger(run, cfg, 40)
        env = toy_env(4, 0)
        trainer = Trainer(cfg, run, env, toy_env(3, 1), logger, SimpleNamespace(stop=None))
        for tick in range(12):
            if tick == 6:
                env.engine.dof_pos[2] = float("nan")
                env.engine.poison[2] = True
            trainer.collect()
        logger.close()
    assert torch.isfinite(trainer.replay.state).all()
    assert trainer.replay.first[:12, 2].nonzero().flatten().tolist() == [0, 7] and env.quarantined == 1
    assert trainer.replay.first[:12, [0, 1, 3]].sum() == 3


def test_a_checkpoint_of_other_sizes_is_refused(tmp_path):
    trained(tmp_path / "a", config(80))
    other = config(160, str(tmp_path / "a"))
    other.world_model.denoiser.width = 24
    with pytest.raises(CheckpointError, match=r"made with other settings \(.*world_model\.denoiser\.width 16 -> 24"):
        trained(tmp_path / "b", other)


def test_losses_that_stay_non_finite_end_the_run_and_change_no_weight(tmp_path):
    cfg = config(2_000, eval_every=0)
    cfg.train.probe_every = 0
    cfg.train.checkpoint.every = 0
    with RunFolder(tmp_path) as run:
        logger = Logger(run, cfg, 2_000)
        trainer = Trainer(cfg, run, toy_env(4, 0), toy_env(3, 1), logger, SimpleNamespace(stop=None))
        before = {name: value.clone() for name, value in trainer.world.reward.net.state_dict().items()}
        collect = trainer.collect

        def poisoned() -> None:
            collect()
            trainer.replay.reward.fill_(float("nan"))

        trainer.collect = poisoned
        with pytest.raises(DivergenceError, match="world/reward"):
            trainer.run()
        logger.close()
    assert trainer.env_steps < 600
    assert all(torch.equal(before[name], value) for name, value in trainer.world.reward.net.state_dict().items())


def test_a_row_is_what_was_seen_and_what_was_done_there(tmp_path):
    cfg = config(40)
    with RunFolder(tmp_path) as run:
        logger = Logger(run, cfg, 40)
        env = toy_env(4, 0)
        trainer = Trainer(cfg, run, env, toy_env(3, 1), logger, SimpleNamespace(stop=None))
        step, told = env.step, []

        def listen(action: torch.Tensor):
            told.append((trainer.step.state.clone(), action.clone()))
            return step(action)

        env.step = listen
        trainer.explorer.cfg = ExploreConfig(max_std=5.0)
        for _ in range(10):
            trainer.collect()
        logger.close()
    for row, (state, action) in enumerate(told):
        assert torch.equal(trainer.replay.state[row], state) and torch.equal(trainer.replay.action[row], action)
    assert trainer.replay.action[:10].abs().max() == 1.0  # what noise pushes out is clipped before anyone sees it


def test_the_held_out_error_is_of_rows_that_no_update_has_seen(tmp_path):
    cfg = config(320, eval_every=0)
    cfg.train.probe_every = 0
    with RunFolder(tmp_path) as run:
        logger = Logger(run, cfg, 320)
        trainer = Trainer(cfg, run, toy_env(4, 0), toy_env(3, 1), logger, SimpleNamespace(stop=None))
        update_held_out, seen = trainer.world.update_held_out, []

        def listen(window):
            seen.append((trainer.fitted_steps, trainer.env_steps, window.state[:, -1].clone()))
            return update_held_out(window)

        trainer.world.update_held_out = listen
        trainer.run()
        logger.close()
    assert [before for before, _, _ in seen] == [*range(40, 320, 40)]
    for before, now, state in seen:
        rows = trainer.replay.state[before // 4 : now // 4].flatten(0, 1)
        assert now - before == 40 and sorted(state.tolist()) == sorted(rows.tolist())


def spoilt(folder, cfg: RunConfig, times: int, at: int = 100) -> Trainer:
    """A run in which one weight of the actor becomes NaN at ``at`` environment steps, as often as ``times``."""
    torch.manual_seed(0)
    left = [times]
    with RunFolder(folder) as run:
        logger = Logger(run, cfg, cfg.max_env_steps)
        trainer = Trainer(cfg, run, toy_env(4, 0), toy_env(3, 1), logger, SimpleNamespace(stop=None))
        collect = trainer.collect

        def watched() -> None:
            collect()
            if trainer.env_steps == at and left[0]:
                left[0] -= 1
                with torch.no_grad():
                    next(trainer.agent.actor.parameters())[0] = torch.nan

        trainer.collect = watched
        try:
            trainer.run()
        finally:
            logger.close()
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("captured", [False, True])
def test_weights_that_are_not_finite_are_not_saved_and_cost_the_steps_since_the_last_checkpoint(
    tmp_path, monkeypatch, capsys, captured
):
    use_tapes(monkeypatch)
    trainer = spoilt(tmp_path, replace(config(240, eval_every=0), compile=captured), times=1)
    said = capsys.readouterr().out
    assert "not finite in agent" in said and "Going back to 80 environment steps" in said
    assert trainer.env_steps == 240 and torch.isfinite(trainer.agent.actor.mode(trainer.step.obs)).all()
    steps = [json.loads(line)["env_steps"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    rows = trainer.replay.action[: trainer.replay.size]
    assert torch.isfinite(rows).all() and trainer.replay.size == 60


@pytest.mark.slow
def test_the_second_time_ends_the_run_with_a_good_checkpoint(tmp_path):
    with pytest.raises(DivergenceError, match="not finite in agent and world at 160 "):
        spoilt(tmp_path, config(240, eval_every=0), times=2)
    kept = checkpoint.read(tmp_path / "checkpoints" / "last.pt")
    assert kept["env_steps"] == 80 and all(value.isfinite().all() for value in kept["agent"].values())


def test_a_weight_that_is_not_finite_is_not_blamed_on_physics(tmp_path, monkeypatch):
    cfg = config(240, eval_every=0)
    cfg.train.checkpoint.every = 0

    def step(env, action):
        if ticks[0] == 4:
            raise SimulationError("are the actions finite?")
        ticks[0] += 1
        return real(env, action)

    real, ticks = VecEnv.step, [0]
    monkeypatch.setattr(VecEnv, "step", step)
    with pytest.raises(SimulationError):
        spoilt(tmp_path / "a", cfg, times=0)
    ticks[0] = 0
    with pytest.raises(DivergenceError, match="not finite in agent"):
        spoilt(tmp_path / "b", cfg, times=1, at=8)


def test_what_is_saved_is_not_written_again(tmp_path, monkeypatch):
    """Saves are due at 80 and 160, where the run ends as well."""
    written, save = [], checkpoint.Checkpoints.save
    monkeypatch.setattr(
        checkpoint.Checkpoints, "save", lambda self, n, state: written.append(n) or save(self, n, state)
    )
    trained(tmp_path, config(160))
    assert written == [80, 160]


def test_ten_nonfinite_rows_end_a_run_only_in_a_row(tmp_path):
    cfg = config(40)
    with RunFolder(tmp_path) as run:
        logger = Logger(run, cfg, 40)
        trainer = Trainer(cfg, run, toy_env(4, 0), toy_env(3, 1), logger, SimpleNamespace(stop=None))
        trainer.collect()
        lost, told = {"world/denoise": None}, {"eval/return": 1.0}  # a row of an evaluation alone has no losses
        rows = [lost] * 9 + [{"world/denoise": 0.5}] + [lost] * 5 + [told] + [lost] * 5
        trainer.logger = SimpleNamespace(add=lambda *_: None, write=lambda _: rows.pop(0))
        for _ in range(20):
            trainer.log_metrics()
        with pytest.raises(DivergenceError, match="world/denoise stayed non-finite"):
            trainer.log_metrics()
        logger.close()


@pytest.mark.slow
def test_a_stop_between_two_rounds_loses_no_evaluation(tmp_path):
    def evaluations(name: str) -> list[tuple[int, float]]:
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [row["eval/return"] for row in rows if "eval/return" in row]

    trained(tmp_path / "whole", config(240, eval_every=100))
    cfg = config(240, eval_every=100)
    with RunFolder(tmp_path / "parts") as run:  # evaluated at 100, stopped at 104, the next round would be at 120
        logger = Logger(run, cfg, cfg.max_env_steps)
        torch.manual_seed(0)
        signals = SimpleNamespace(stop=None)
        trainer = Trainer(cfg, run, toy_env(4, 0), toy_env(3, 1), logger, signals)
        collect = trainer.collect

        def collect_and_stop() -> None:
            collect()
            signals.stop = "SIGTERM" if trainer.env_steps == 104 else None

        trainer.collect = collect_and_stop
        trainer.run()
        logger.close()
    assert trainer.env_steps == 104
    whole = evaluations("whole")
    assert evaluations("parts") == whole[:2]
    trained(tmp_path / "parts", config(240, "auto", eval_every=100))
    assert evaluations("parts") == whole and len(whole) == 4


def test_a_run_that_continues_another_is_saved_before_its_first_step(tmp_path):
    """A kill before the first save would otherwise leave a folder that checkpoint=auto begins anew."""
    trained(tmp_path / "a", config(80))
    cfg = config(80, checkpoint=str(tmp_path / "a"))
    with RunFolder(tmp_path / "b") as run:
        logger = Logger(run, cfg, 80)
        Trainer(cfg, run, toy_env(4, 0), toy_env(3, 1), logger, SimpleNamespace(stop=None))
        logger.close()
        assert [path.name for path in run.checkpoints.glob("step_*")] == ["step_80.pt"]


def test_a_run_that_begins_anew_drops_the_rows_of_one_killed_before_its_first_save(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"env_steps": 40, "wall_time": 9.0}\n')
    trained(tmp_path, config(80, checkpoint="auto"))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["env_steps"] for row in rows].count(40) == 1 and rows[0]["wall_time"] < 9.0
