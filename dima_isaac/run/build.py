"""From a checked configuration to objects: every ``auto`` becomes a value with a reason, then engine, task, VecEnv.

Global state (threads, seeds, TF32, determinism) is set here and nowhere else. Code is found only through the
catalogue's YAML files; what a run folder or a checkpoint says is data.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from dima_isaac.config import Algo, RunConfig
from dima_isaac.envs.task import Task, TaskSpec
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import UsageError
from dima_isaac.run.catalog import CODE_KEYS, Catalog, resolve
from dima_isaac.schema import AUTO, as_dict, from_dict
from dima_isaac.sim.engine import Engine
from dima_isaac.world_model.config import Precision
from dima_isaac.world_model.reveal import steps_for

ENVS_PER_CORE = 16
ENVS_PER_GPU = 2048
_DRIVER = Path("/proc/driver/nvidia/version")


def resolve_run(
    cfg: RunConfig, catalog: Catalog, stored: dict[str, Any] | None = None
) -> tuple[RunConfig, dict[str, str]]:
    """``cfg`` without an ``auto``, and the reason for each value that was one.

    A continued run keeps what it ``stored`` for ``num_envs`` and the engine.

    Raises:
        UsageError: an engine or device that is not there, a task that cannot be found or refuses a value.
    """
    reasons: dict[str, str] = {}
    if stored and cfg.engine["name"] == AUTO:
        cfg = replace(cfg, engine={**cfg.engine, "name": stored["engine"]["name"]})
        reasons["engine"] = "as this run began"
    engine = _resolve_engine(cfg, catalog, reasons)
    on_gpu = bool(engine.get("requires", {}).get("gpu"))
    sim_device, rl_device, num_envs, threads = cfg.sim_device, cfg.rl_device, cfg.num_envs, cfg.threads
    if sim_device == AUTO:
        on_gpu = on_gpu and torch.cuda.is_available()
        sim_device = "cuda:0" if on_gpu else "cpu"
        reasons["sim_device"] = f"{sim_device}: where {engine['name']} computes"
        if engine.get("requires", {}).get("gpu") and not on_gpu:
            reasons["sim_device"] += f", slowly, because {_why_device('cpu')}"
    on_gpu = on_gpu and sim_device != "cpu"
    if rl_device == AUTO:
        rl_device = sim_device if on_gpu else ("cuda:0" if torch.cuda.is_available() else "cpu")
        reasons["rl_device"] = f"{rl_device}: {_why_device(rl_device)}"
    sim_device, rl_device = _checked_device("sim_device", sim_device), _checked_device("rl_device", rl_device)
    if num_envs == AUTO and stored:
        num_envs = int(stored["num_envs"])
        reasons["num_envs"] = f"{num_envs}: as this run began"
    if num_envs == AUTO:
        num_envs = ENVS_PER_GPU if on_gpu else ENVS_PER_CORE * cores()
        reasons["num_envs"] = f"{num_envs}: " + (
            "one GPU" if on_gpu else f"{ENVS_PER_CORE} for each of {cores()} cores"
        )
    if threads == AUTO:
        limit = os.environ.get("OMP_NUM_THREADS", "")
        threads = int(limit) if limit.isdigit() and int(limit) > 0 else cores()
        reasons["threads"] = f"{threads}: " + ("OMP_NUM_THREADS" if limit.isdigit() else "cores this process may use")
    if cfg.world_model.precision is Precision.auto:
        precision, why = _precision(rl_device)
        cfg = replace(cfg, world_model=replace(cfg.world_model, precision=precision))
        reasons["precision"] = f"{precision.name}: {why}"
    if cfg.compile == AUTO:
        on = torch.device(rl_device).type == "cuda"
        cfg = replace(cfg, compile=on)
        reasons["compile"] = f"{on}: " + (
            "one launch for a dream or an update" if on else "graphs are for GPUs, and the learner is on the CPU"
        )
    task = {key: value for key, value in cfg.task.items() if key not in ("requires", "defaults")}
    task |= as_dict(task_config(cfg))
    settings: dict[str, Any] = {"sim_device": sim_device, "rl_device": rl_device, "num_envs": num_envs}
    settings["threads"] = threads
    return replace(cfg, task=task, engine=engine, **settings), reasons


def task_config(cfg: RunConfig) -> Any:
    """The task's own dataclass with the run's values.

    Raises:
        UsageError: a key or type that the dataclass does not have.
    """
    cls = resolve(cfg.task["target"])
    values = {key: value for key, value in cfg.task.items() if key not in CODE_KEYS}
    return from_dict(cls.Config, values, "task.")


def build_task(cfg: RunConfig) -> Task:
    """The Markov game that ``cfg`` names."""
    task: Task = resolve(cfg.task["target"])(task_config(cfg))
    return task


def build_engine(cfg: RunConfig, task: Task, num_envs: int) -> Engine:
    """``num_envs`` copies of the task's scene on the engine of a resolved ``cfg``, or on the task's own engine."""
    if task.own_engine:
        own: Engine = task.build_engine(num_envs)
        return own
    values = {key: value for key, value in cfg.engine.items() if key not in CODE_KEYS}
    config = from_dict(resolve(cfg.engine["config"]), values, "engine.")
    device = {"device": torch.device(cfg.sim_device)} if cfg.engine.get("requires", {}).get("gpu") else {}
    engine: Engine = resolve(cfg.engine["target"])(task.scene(), num_envs, config, **device)
    return engine


def build_env(cfg: RunConfig, num_envs: int, seed: int, episode: int = 0) -> VecEnv:
    """``num_envs`` copies of the task of a resolved ``cfg``; episodes start as ``seed`` says.

    ``episode`` > 0 cuts them off after so many control steps.
    """
    task = build_task(cfg)
    return VecEnv(build_engine(cfg, task, num_envs), task, seed, torch.device(cfg.rl_device), episode)


def check_fit(cfg: RunConfig, spec: TaskSpec) -> None:
    """What only the task's sizes tell of a configuration.

    Raises:
        UsageError: a number of reverse steps by which the agents cannot be revealed equally often.
    """
    if cfg.algo is Algo.dima:
        steps_for(spec.dims.agents, cfg.world_model.denoiser.steps, cfg.world_model.denoiser.reveal)


def build_env_by_name(
    task: str, num_envs: int, engine: str, seed: int, device: str, overrides: dict[str, Any]
) -> VecEnv:
    """``dima_isaac.make``: an environment from a task's name and values for its configuration.

    Raises:
        UsageError: an unknown task, engine or override; the message lists the alternatives.
    """
    catalog = Catalog()
    catalog.check("engine", engine)
    for key, value, least in (("num_envs", num_envs, 1), ("seed", seed, 0)):
        if not isinstance(value, Integral) or value < least:
            raise UsageError(f"{key}={value!r}: expected a whole number, at least {least}.")
    num_envs, seed = int(num_envs), int(seed)  # NumPy's do not wrap as Python's do
    for key in overrides:
        if key in CODE_KEYS:
            raise UsageError(f"{key} says which code task {task} is, not a value of it; a YAML file of your own can.")
    cfg = RunConfig(
        task={**catalog.values("task", task), **overrides},
        engine=catalog.values("engine", engine),
        num_envs=num_envs,
        seed=seed,
        sim_device=device,
        rl_device=device,
    )
    resolved, _ = resolve_run(cfg, catalog)
    return build_env(resolved, num_envs, seed)


def set_global_state(cfg: RunConfig) -> None:
    """Threads, seeds, TF32 and determinism of this process, from a resolved ``cfg``."""
    torch.set_num_threads(int(cfg.threads))
    random.seed(cfg.seed)
    torch.manual_seed(cfg.seed)
    torch.set_float32_matmul_precision("highest" if cfg.torch_deterministic else "high")
    if cfg.torch_deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if cfg.rl_device.startswith("cuda"):
        torch.cuda.set_device(cfg.rl_device)  # else what names no GPU would take memory on the first one


def cores() -> int:
    """Cores that this process may use: its affinity, and the container's quota where there is one."""
    available = len(os.sched_getaffinity(0))
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            available = min(available, max(1, int(limit) // int(period)))
    return available


def _resolve_engine(cfg: RunConfig, catalog: Catalog, reasons: dict[str, str]) -> dict[str, Any]:
    """The engine's full description: its YAML, its dataclass's values and the user's on top."""
    chosen, refusals = cfg.engine["name"], []
    known = catalog.names("engine")
    task: type[Task] = resolve(cfg.task["target"])
    alone = task.own_engine
    if chosen == AUTO:
        candidates = [name for name in catalog.values("engine", AUTO)["candidates"] if name in known]
        first = task.preferred_engine
        if first in candidates and not _refusal(catalog.values("engine", first), cfg.sim_device, named=False):
            candidates, refusals = [first], ["this task's numbers are that engine's"]
        for name in candidates:
            refusal = _refusal(catalog.values("engine", name), cfg.sim_device, named=False, alone=alone)
            if not refusal:
                chosen = name
                break
            refusals.append(f"{name} {refusal}")
        else:
            raise UsageError(f"no engine can run here: {'; '.join(refusals)}.")
        reasons["engine"] = f"{chosen}: " + ("; ".join(refusals) if refusals else "first choice")
    else:
        typed = {key: value for key, value in cfg.engine.items() if key not in CODE_KEYS}
        refusal = _refusal({**catalog.values("engine", chosen), **typed}, cfg.sim_device, named=True, alone=alone)
        if refusal:
            raise UsageError(f"engine={chosen} {refusal}. engine=auto takes what this machine can run.")
    description = catalog.values("engine", chosen)
    own = {key: value for key, value in cfg.engine.items() if key not in CODE_KEYS}
    settings = {**{key: value for key, value in description.items() if key not in CODE_KEYS}, **own}
    config = from_dict(resolve(description["config"]), settings, "engine.")
    head = {key: description[key] for key in ("name", "target", "config", "requires") if key in description}
    return {**head, **as_dict(config)}


def _refusal(description: dict[str, Any], sim_device: str, named: bool, alone: bool = False) -> str:
    """Why this machine or ``sim_device`` rules an engine out, with the cure, or ''.

    An engine for GPUs that can also compute on a CPU does so only when it was ``named``.
    """
    from importlib.util import find_spec

    needs = description.get("requires", {})
    gpu = bool(needs.get("gpu"))
    cpu_too = named and bool(needs.get("cpu_too"))
    if gpu and alone:
        return "needs a scene, and this task simulates itself on the CPU"
    if not gpu and sim_device.startswith("cuda"):
        return f"computes on the CPU, not on sim_device={sim_device}"
    if gpu and sim_device == "cpu" and not cpu_too:
        return "needs a GPU, not sim_device=cpu"
    missing = [module for module in needs.get("modules", ()) if find_spec(module) is None]
    if missing:
        return f"needs {', '.join(missing)} ({needs.get('cure', 'pip install it')})"
    variable = needs.get("variable", "")
    if variable and not os.environ.get(variable) and not description.get(needs.get("key", "")):
        return f"needs {variable} ({needs.get('cure', 'set it')})"
    if gpu and sim_device != "cpu" and not (cpu_too and sim_device == AUTO) and not torch.cuda.is_available():
        return f"needs an NVIDIA GPU, and {_why_device('cpu')}"
    return ""


def _precision(rl_device: str) -> tuple[Precision, str]:
    """What the world model's networks compute in, and why."""
    if rl_device.startswith("cuda"):
        native, what = torch.cuda.is_bf16_supported(including_emulation=False), "this GPU"
    else:
        native, what = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(), "this CPU"
    if native:
        return Precision.bf16, f"{what} multiplies bfloat16 natively"
    return Precision.fp32, f"{what} has no bfloat16 arithmetic"


def _checked_device(key: str, name: str) -> str:
    """``name`` in the one way in which torch, Warp and comparisons of devices know it: cuda is cuda:0."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"{key}={name} is not a device; write cpu, cuda:0 or auto.") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"{key}={name}, but {_why_device('cpu')}; write cpu or auto.")
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise UsageError(f"{key}={name}, but there are {torch.cuda.device_count()} GPUs (cuda:0 is the first).")
        return f"cuda:{device.index or 0}"
    return name


def _why_device(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    if torch.version.cuda is None:
        return "this torch is a CPU build"
    if _DRIVER.is_file():
        return f"torch sees no GPU: its CUDA {torch.version.cuda} may need a newer driver than this machine's"
    return "torch sees no GPU"
