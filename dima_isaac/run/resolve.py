"""Every ``auto`` of a configuration becomes a value, with the reason for it."""

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from dima_isaac import ranks
from dima_isaac.agent.config import LearnerKind
from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError
from dima_isaac.run.catalog import Catalog, code, engine_config, settings, task_class, task_config
from dima_isaac.schema import AUTO, Few, as_dict, check_range
from dima_isaac.world_model.config import Precision

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

    def choose(key: str, value: Any, why: str) -> Any:
        """What was set for ``key``, or else ``value``."""
        if getattr(cfg, key) != AUTO:
            return getattr(cfg, key)
        reasons[key] = f"{value}: {why}"
        return value

    if stored and cfg.engine["name"] == AUTO:
        cfg = replace(cfg, engine={**cfg.engine, "name": stored["engine"]["name"]})
        reasons["engine"] = "as this run began"
    engine = _resolve_engine(cfg, catalog, reasons)
    own = f"cuda:{ranks.local_rank() % max(1, torch.cuda.device_count())}"
    gpu, gpu_engine = torch.cuda.is_available(), bool(engine.get("requires", {}).get("gpu"))
    why = f"where {engine['name']} computes"
    if gpu_engine and not gpu:
        why += f", slowly, because {_why_device('cpu')}"
    sim_device = _checked_device("sim_device", choose("sim_device", own if gpu_engine and gpu else "cpu", why))
    on_gpu = gpu_engine and sim_device != "cpu"
    device = sim_device if on_gpu else own if gpu else "cpu"
    rl_device = _checked_device("rl_device", choose("rl_device", device, _why_device(device)))
    if stored:
        num_envs = choose("num_envs", int(stored["num_envs"]), "as this run began")
    elif on_gpu:
        number, what = ranks.count(), "one GPU" if ranks.count() == 1 else f"{ENVS_PER_GPU} for each of the GPUs"
        num_envs = choose("num_envs", number * ENVS_PER_GPU, what)
    else:
        number = ranks.count() * ranks.cores()
        num_envs = choose("num_envs", ENVS_PER_CORE * number, f"{ENVS_PER_CORE} for each of {number} cores")
    if int(num_envs) % ranks.count():
        near = -(-int(num_envs) // ranks.count()) * ranks.count()
        raise UsageError(
            f"num_envs={num_envs} is over all {ranks.count()} ranks and cannot be shared equally; take num_envs={near}."
        )
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdigit() and int(limit) > 0:
        check_range("OMP_NUM_THREADS", int(limit), Few)
        threads = choose("threads", int(limit), "OMP_NUM_THREADS")
    elif cfg.agent.learner is LearnerKind.sac:
        threads = choose("threads", 1, "batches of agent.learner=sac are too small to share out")
    else:
        threads = choose("threads", ranks.cores(), "cores this process may use")
    graphs = rl_device != "cpu" and ranks.count() == 1
    why = "one launch for a dream or an update" if graphs else "graphs are for GPUs, and the learner is on the CPU"
    if ranks.count() > 1 and rl_device != "cpu":
        why = "messages between ranks are not captured"
    if cfg.compile is True and not graphs:
        cfg = replace(cfg, compile=AUTO)
    world = cfg.world_model
    if world.precision is Precision.auto:
        precision, why_precision = _precision(rl_device)
        world = replace(world, precision=precision)
        reasons["precision"] = f"{precision.name}: {why_precision}"
    return replace(
        cfg,
        task={**code(cfg.task), **as_dict(task_config(cfg.task))},
        engine=engine,
        sim_device=sim_device,
        rl_device=rl_device,
        num_envs=num_envs,
        threads=threads,
        compile=choose("compile", graphs, why),
        world_model=world,
    ), reasons


def _resolve_engine(cfg: RunConfig, catalog: Catalog, reasons: dict[str, str]) -> dict[str, Any]:
    """The engine's code keys and every one of its settings."""
    chosen = cfg.engine["name"]
    if chosen == AUTO:
        candidates = catalog.values("engine", AUTO)["candidates"]
        refused = {name: refusal(cfg, name, catalog) for name in candidates}
        chosen, reasons["engine"] = _first_engine(task_class(cfg.task).preferred_engine, refused)
        if task_class(cfg.task).own_engine:
            reasons["engine"] = f"{chosen}: not used, since this task simulates itself on the CPU"
    elif why := refusal(cfg, chosen, catalog, named=True):
        if "engine" in reasons:
            raise UsageError(f"this run began with engine={chosen}, which {why}.")
        raise UsageError(f"engine={chosen} {why}. engine=auto takes what this machine can run.")
    description = {**catalog.values("engine", chosen), **settings(cfg.engine)}
    return {**code(description), **as_dict(engine_config(description))}


def _first_engine(preferred: str, refused: dict[str, str]) -> tuple[str, str]:
    """The task's ``preferred`` engine or else the first that is not ``refused`` (engine -> why or ''), and why."""
    if refused.get(preferred) == "":
        return preferred, f"{preferred}: this task's numbers are that engine's"
    before = list[str]()
    for name, why in refused.items():
        if not why:
            return name, f"{name}: " + ("; ".join(before) or "first choice")
        before.append(f"{name} {why}")
    raise UsageError(f"no engine can run here: {'; '.join(before)}.")


def refusal(cfg: RunConfig, name: str, catalog: Catalog, named: bool = False) -> str:
    """Why this machine, ``cfg.sim_device`` or the task rules out the engine ``name``, with the cure, or ''.

    An engine for GPUs that can also compute on a CPU does so only when the user ``named`` it.
    """
    description, sim_device = {**catalog.values("engine", name), **settings(cfg.engine)}, cfg.sim_device
    needs = description.get("requires", {})
    gpu = bool(needs.get("gpu"))
    cpu_too = named and bool(needs.get("cpu_too"))
    if gpu and task_class(cfg.task).own_engine:
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
    if rl_device != "cpu":
        native, what = torch.cuda.is_bf16_supported(including_emulation=False), "this GPU"
    else:
        native, what = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(), "this CPU"
    if native:
        return Precision.bf16, f"{what} multiplies bfloat16 natively"
    return Precision.fp32, f"{what} has no bfloat16 arithmetic"


def _checked_device(key: str, name: str) -> str:
    """``name`` with its index, as torch and Warp compare devices: cuda is cuda:0."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"{key}={name} is not a device of this program; write cpu, cuda:0 or auto.")
    if device.type == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise UsageError(f"{key}={name}, but {_why_device('cpu')}; write cpu or auto.")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise UsageError(f"{key}={name}, but there are {torch.cuda.device_count()} GPUs (cuda:0 is the first).")
    return f"cuda:{ranks.local_rank() % torch.cuda.device_count() if device.index is None else device.index}"


def _why_device(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    if torch.version.cuda is None:
        return "this torch is a CPU build"
    if _DRIVER.is_file():
        return f"torch sees no GPU: its CUDA {torch.version.cuda} may need a newer driver than this machine has"
    return "torch sees no GPU"
