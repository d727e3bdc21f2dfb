"""``bench`` end to end on the toy game."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from dima_isaac.bench import main as bench
from dima_isaac.cli import main as cli
from dima_isaac.nn.captured import Captured
from tests.cli.program import ENV, ROOT
from tests.tape import use_tapes
from tests.tools.toy_runs import TOY, last_json

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("suite", ["imagine", "train"])
def test_bench_ends_with_one_json_line(suite, capsys):
    words = [f"suite={suite}", "task=Toy", "engine=toy", "preset=smoke", "against=default", "num_envs=4", "threads=1"]
    assert cli.main(["bench", *TOY, *words, "seconds=0", "repeats=1", "batch=4", "horizon=2"]) == 0
    line = last_json(capsys.readouterr().out)
    assert line["suite"] == suite and line["machine"]["torch_threads"] == 1 and "torch" in line["machine"]["versions"]
    if suite == "train":
        assert sum(line["share"].values()) + line["other"] == pytest.approx(1.0) and line["env_steps"] == 64
    else:
        assert line["smoke"]["flops_per_step"] < line["default"]["flops_per_step"]
        assert line["smoke"]["parameters"] > 0 and line["ratio"] > 0.0


@pytest.mark.parametrize("algo", ["sac", "dima"])
def test_a_learner_from_replay_is_measured_while_it_learns(algo, capsys):
    """Its first update comes at ``agent.sac.start``, which no measured round may lie before."""
    words = ["suite=train", "task=Toy", "engine=toy", "preset=smoke", "num_envs=4", "threads=1", "agent.learner=sac"]
    assert cli.main(["bench", *TOY, *words, f"algo={algo}", "agent.sac.start=1000", "seconds=0"]) == 0
    line = last_json(capsys.readouterr().out)
    assert line["algo"] == algo and line["rounds"] == 1 and line["share"]["policy"] > 0 and line["share"]["replay"] > 0
    assert (line["share"]["dynamics"] > 0) == (algo == "dima")
    assert line["flops_per_step"] > 100_000, "a thousand are those of acting"


def test_rl_games_loop_is_not_measured(capsys):
    words = ["suite=train", "task=Toy", "engine=toy", "preset=smoke", "num_envs=4", "threads=1", "algo=ppo"]
    assert cli.main(["bench", *TOY, *words, "seconds=0"]) == 2
    assert "algo=dima and algo=sac, not algo=ppo" in capsys.readouterr().err


def test_two_ranks_are_measured_together(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    words = ["suite=train", "task=Toy", "engine=toy", "preset=smoke", "num_envs=4", "threads=1", "seconds=0"]
    ended = subprocess.run([*command, str(ROOT / "scripts" / "bench.py"), *TOY, *words], cwd=tmp_path, env=ENV,
                           capture_output=True, text=True)  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    line = last_json(ended.stdout)
    assert line["ranks"] == 2 and line["env_steps"] == 64 and ended.stdout.count("share of time") == 1


@pytest.mark.parametrize("suite", ["imagine", "train"])
def test_bench_counts_the_operations_of_the_published_networks(suite, capsys):
    small = ("world_model.denoiser.backbone=mlp", "train.learn.dreams=4", "train.learn.horizon=2")
    small += ("train.learn.dynamics_batch=4", "train.learn.reward_batch=4", "train.learn.decoder_per_step=0.1")
    words = [f"suite={suite}", "task=Toy", "engine=toy", "preset=paper", "against=smoke", "num_envs=4", "threads=1"]
    words += ["env_steps=64", *small, "train.learn.start=16", "train.learn.behaviour_start=16", "train.learn.round=16"]
    assert cli.main(["bench", *TOY, *words, "seconds=0", "repeats=1", "batch=4", "horizon=2"]) == 0
    line = last_json(capsys.readouterr().out)
    assert (line["paper"] if suite == "imagine" else line)["flops_per_step"] > 1e5


def test_bench_plays_dreams_as_graphs_where_a_run_does(capsys, monkeypatch):
    use_tapes(monkeypatch)
    capture, captures = Captured._capture, []
    monkeypatch.setattr(Captured, "_capture", lambda *words: captures.append(words) or capture(*words))
    resolve = bench.resolve_run
    captured = lambda cfg, catalog: (replace(resolve(cfg, catalog)[0], compile=True), {})  # as with a learner on a GPU
    monkeypatch.setattr(bench, "resolve_run", captured)
    words = ["suite=imagine", "task=Toy", "engine=toy", "preset=smoke", "against=default", "threads=1"]
    assert cli.main(["bench", *TOY, *words, "seconds=0", "repeats=1", "batch=4", "horizon=2"]) == 0
    assert last_json(capsys.readouterr().out)["smoke"]["imagined_steps_per_s"] > 0.0
    assert len(captures) == 2, "one graph for each preset"


def test_a_multiply_add_counts_as_two_operations():
    """What the bench's counter says of a network whose operations can be counted by hand."""
    from torch.utils.flop_counter import FlopCounterMode

    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(3, 6))
    assert counter.get_total_flops() == 3 * 2 * (6 * 5 + 5 * 2)
