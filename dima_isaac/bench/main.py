"""``bench``: speed, as a table and one JSON line that names the machine and the versions it was measured with."""

import importlib
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dima_isaac import ranks
from dima_isaac.bench.config import BenchConfig, Suite
from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError
from dima_isaac.run import build
from dima_isaac.run.catalog import Catalog
from dima_isaac.run.resolve import resolve_run
from dima_isaac.run.versions import versions

_PACKAGES = ("torch", "numpy", "mujoco", "mujoco-warp", "warp-lang", "gymnasium-robotics", "dima-isaac")


def main(cfg: BenchConfig, changes: dict[str, str], compose: Callable[..., RunConfig], catalog: Catalog) -> int:
    """Run one suite, the module of its name. The last line printed is one JSON object."""

    def resolved(*overrides: str) -> RunConfig:
        run, _ = resolve_run(compose(*overrides), catalog)
        build.set_global_state(run)
        return run

    if cfg.suite is Suite.mamujoco and changes:
        raise UsageError(f"suite=mamujoco has tasks of its own; leave {' and '.join(changes)} out.")
    if cfg.suite is Suite.imagine:
        catalog.check("preset", cfg.against)
    result = importlib.import_module(f"dima_isaac.bench.{cfg.suite.name}").suite(cfg, resolved)
    line = {"suite": cfg.suite.name, **result, "machine": machine()}
    sys.stdout.flush()
    print(json.dumps(line, allow_nan=False))
    return 0


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, threads, device, versions, commit."""
    known = versions()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu(),
        "cores": ranks.cores(),
        "load": round(os.getloadavg()[0], 2),
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu,
        "cuda": torch.version.cuda if gpu else None,
        "python": known["python"],
        "versions": {name: known["packages"][name] for name in _PACKAGES if name in known["packages"]},
        "commit": known["git"][:12] + ("+changes" if known["git"] and known["git_dirty"] else ""),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
