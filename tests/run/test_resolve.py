"""``auto`` becomes a value with a reason; what cannot be had is refused with the cure."""

import re

import pytest
import torch

from dima_isaac import ranks
from dima_isaac.agent.config import AgentConfig, LearnerKind
from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError
from dima_isaac.run import resolve
from dima_isaac.run.catalog import Catalog
from dima_isaac.world_model.config import Precision


class OneEngine(Catalog):
    """The packaged catalogue with one more engine that says what it needs."""

    def __init__(self, **requires) -> None:
        super().__init__()
        self.requires = requires

    def names(self, group):
        return super().names(group) + (["special"] if group == "engine" else [])

    def values(self, group, name):
        if name == "special":
            return {**super().values("engine", "mujoco"), "name": "special", "requires": self.requires}
        if (group, name) == ("engine", "auto"):
            return {"name": "auto", "candidates": ["special", "mujoco"]}
        return super().values(group, name)


def run_config(engine: str = "auto", **kw) -> RunConfig:
    task = {"name": "Toy", "target": "tests.toy_plugin:Toy", "fence": 2.0}
    return RunConfig(task=task, engine={"name": engine}, **kw)


@pytest.mark.parametrize(
    ("requires", "said"),
    [
        ({"modules": ["no_such_module"], "cure": "pip install it"}, "needs no_such_module (pip install it)"),
        ({"variable": "NO_SUCH_VARIABLE", "cure": "set it"}, "needs NO_SUCH_VARIABLE (set it)"),
        ({"gpu": True}, "needs an NVIDIA GPU"),
    ],
)
def test_an_engine_that_cannot_run_is_refused_by_name_and_passed_over_by_auto(requires, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    catalog = OneEngine(**requires)
    with pytest.raises(UsageError) as caught:
        resolve.resolve_run(run_config("special"), catalog)
    assert said in str(caught.value)
    resolved, reasons = resolve.resolve_run(run_config(), catalog)
    assert resolved.engine["name"] == "mujoco" and said in reasons["engine"]


def test_a_gpu_engine_that_can_use_the_cpu_does_so_when_named_only(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    catalog = OneEngine(gpu=True, cpu_too=True)
    resolved, reasons = resolve.resolve_run(run_config("special"), catalog)
    assert resolved.engine["name"] == "special" and resolved.sim_device == resolved.rl_device == "cpu"
    assert "slowly" in reasons["sim_device"] and resolved.num_envs == resolve.ENVS_PER_CORE * ranks.cores()
    for device in ("auto", "cpu"):
        resolved, _ = resolve.resolve_run(run_config(sim_device=device), catalog)
        assert resolved.engine["name"] == "mujoco"
    with pytest.raises(UsageError, match="engine=special needs an NVIDIA GPU"):
        resolve.resolve_run(run_config("special", sim_device="cuda:0"), catalog)


def test_a_gpu_engine_goes_first_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    resolved, _ = resolve.resolve_run(run_config(), OneEngine(gpu=True, cpu_too=True))
    assert resolved.engine["name"] == "special" and resolved.sim_device == "cuda:0"
    assert resolved.num_envs == resolve.ENVS_PER_GPU


def test_every_auto_gets_a_value_and_a_reason(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    resolved, reasons = resolve.resolve_run(run_config(), Catalog())
    assert set(reasons) >= {"engine", "sim_device", "rl_device", "num_envs", "threads"}
    assert resolved.num_envs == resolve.ENVS_PER_CORE * ranks.cores()
    assert resolved.task["episode_length"] == 20 and resolved.task["fence"] == 2.0
    assert resolved.engine["cone"] == "pyramidal" and resolved.engine["name"] == "mujoco"


def test_small_batches_get_one_thread_and_large_ones_every_core(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(ranks, "cores", lambda: 7)
    for learner, threads in ((LearnerKind.sac, 1), (LearnerKind.ppo, 7)):
        agent = AgentConfig(learner=learner)
        assert resolve.resolve_run(run_config(agent=agent), Catalog())[0].threads == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert resolve.resolve_run(run_config(), Catalog())[0].threads == 3


def test_auto_captures_graphs_on_gpus_only(monkeypatch):
    resolved, reasons = resolve.resolve_run(run_config(rl_device="cpu"), Catalog())
    assert resolved.compile is False and "CPU" in reasons["compile"]
    resolved, reasons = resolve.resolve_run(run_config(rl_device="cpu", compile=True), Catalog())
    assert resolved.compile is False and "CPU" in reasons["compile"], (
        "requested where it is impossible: eager, with the reason"
    )
    monkeypatch.setattr(resolve, "_checked_device", lambda key, name: name)
    monkeypatch.setattr(resolve, "_precision", lambda device: (Precision.bf16, "said"))
    resolved, reasons = resolve.resolve_run(run_config(rl_device="cuda:0"), Catalog())
    assert resolved.compile is True and "launch" in reasons["compile"]


def test_the_original_is_left_alone():
    cfg = run_config()
    resolve.resolve_run(cfg, Catalog())
    assert cfg == run_config()


def test_a_continued_run_keeps_its_engine_and_number_of_environments():
    stored = {"engine": {"name": "mujoco"}, "num_envs": 6}
    resolved, reasons = resolve.resolve_run(run_config(), Catalog(), stored)
    assert resolved.num_envs == 6 and "as this run began" in reasons["num_envs"]


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "mps"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(UsageError, match=f"sim_device={device}|rl_device={device}"):
        resolve.resolve_run(run_config(rl_device=device), Catalog())


def a_gpu(monkeypatch, bf16: bool = True) -> None:
    """A machine with one GPU, as far as torch's questions go."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    emulated = lambda including_emulation=True: bf16 or including_emulation
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", emulated)


def test_a_gpu_has_one_name(monkeypatch):
    a_gpu(monkeypatch)
    catalog = OneEngine(gpu=True)
    for given in ({"sim_device": "cuda"}, {"rl_device": "cuda"}, {"sim_device": "cuda:0", "rl_device": "cuda"}):
        resolved, _ = resolve.resolve_run(run_config(**given), catalog)
        assert resolved.sim_device == resolved.rl_device == "cuda:0"


def test_bfloat16_is_not_taken_where_it_is_emulated(monkeypatch):
    for native, precision in ((True, Precision.bf16), (False, Precision.fp32)):
        a_gpu(monkeypatch, native)
        resolved, reasons = resolve.resolve_run(run_config(), OneEngine(gpu=True))
        assert resolved.world_model.precision is precision and "this GPU" in reasons["precision"]


def test_a_task_that_simulates_itself_takes_no_gpu_engine(monkeypatch):
    a_gpu(monkeypatch)
    own = {"name": "pettingzoo", "target": "tests.toy_plugin:OwnEngine", "fence": 2.0}
    resolved, reasons = resolve.resolve_run(RunConfig(task=own), OneEngine(gpu=True, cpu_too=True))
    assert resolved.engine["name"] == "mujoco" and resolved.sim_device == "cpu" and resolved.rl_device == "cuda:0"
    assert resolved.num_envs == resolve.ENVS_PER_CORE * ranks.cores() and "simulates itself" in reasons["engine"]
    with pytest.raises(UsageError, match="simulates itself"):
        resolve.resolve_run(RunConfig(task=own, engine={"name": "special"}), OneEngine(gpu=True, cpu_too=True))


def test_a_task_whose_numbers_are_one_engine_s_keeps_it_beside_a_gpu(monkeypatch):
    a_gpu(monkeypatch)
    catalog, exact = OneEngine(gpu=True), {"name": "Exact", "target": "tests.toy_plugin:Exact", "fence": 2.0}
    resolved, reasons = resolve.resolve_run(RunConfig(task=exact), catalog)
    assert resolved.engine["name"] == "mujoco" and "numbers" in reasons["engine"] and resolved.rl_device == "cuda:0"
    for given in ({"sim_device": "cuda:0"}, {"engine": {"name": "special"}}):
        resolved, _ = resolve.resolve_run(RunConfig(task=exact, **given), catalog)
        assert resolved.engine["name"] == "special"


def test_physics_on_the_cpu_with_the_learner_on_a_gpu(monkeypatch):
    a_gpu(monkeypatch)
    resolved, _ = resolve.resolve_run(run_config(sim_device="cpu"), OneEngine(gpu=True))
    assert (resolved.engine["name"], resolved.sim_device, resolved.rl_device) == ("mujoco", "cpu", "cuda:0")
    assert resolved.compile is True and resolved.num_envs == resolve.ENVS_PER_CORE * ranks.cores()


def test_a_driver_that_torch_cannot_use_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for driver, said in (("", "torch sees no GPU$"), ("NVRM", "CUDA 13.0 may need a newer driver")):
        monkeypatch.setattr(resolve, "_DRIVER", tmp_path / "version")
        if driver:
            resolve._DRIVER.write_text(driver)
        _, reasons = resolve.resolve_run(run_config(), OneEngine(gpu=True))
        assert re.search(said, reasons["rl_device"])


def test_threads_follow_omp(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    resolved, reasons = resolve.resolve_run(run_config(), Catalog())
    assert resolved.threads == 3 and "OMP_NUM_THREADS" in reasons["threads"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1000000")
    with pytest.raises(UsageError, match="OMP_NUM_THREADS=1000000 is not between 1 and 1_024"):
        resolve.resolve_run(run_config(), Catalog())
