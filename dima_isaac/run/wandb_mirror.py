"""Weights & Biases behind three calls, none of which can stop a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from dima_isaac.config import RunConfig, WandbMode
from dima_isaac.run.folder import RunFolder
from dima_isaac.schema import as_dict


class WandbMirror:
    """Every row again at Weights & Biases. The first failure is reported; after it nothing more is sent."""

    def __init__(self, run: RunFolder, cfg: RunConfig, note: Callable[[str], None]) -> None:
        self._note = note
        self._run: Any = None
        try:
            self._run = self._start(run, cfg)
        except Exception as error:  # whatever it is, the run does not depend on it
            note(f"wandb is off: {_first_line(error)}.")

    def log(self, row: Mapping[str, float | None], env_steps: int) -> None:
        if self._run is None:
            return
        try:
            self._run.log({name: value for name, value in row.items() if value is not None}, step=env_steps)
        except Exception as error:
            self._run = None
            self._note(f"wandb stopped: {_first_line(error)}; training goes on, metrics.jsonl is complete.")

    def close(self) -> None:
        if self._run is None:
            return
        try:
            self._run.finish()
        except Exception as error:
            self._note(f"wandb did not finish: {_first_line(error)}.")

    def _start(self, run: RunFolder, cfg: RunConfig) -> Any:
        import wandb

        def begin(mode: Any) -> Any:
            return wandb.init(
                project=cfg.wandb.project,
                entity=cfg.wandb.entity or None,
                group=cfg.wandb.group or cfg.experiment or None,
                name=cfg.wandb.name or run.path.name,
                id=hashlib.sha1(str(run.path.resolve()).encode()).hexdigest()[:12],
                resume="allow" if mode == "online" else None,
                dir=str(run.path),
                config=as_dict(cfg),
                mode=mode,
                settings=wandb.Settings(init_timeout=15, silent=True, console="off", disable_git=True),
            )

        if cfg.wandb.mode is WandbMode.online:
            try:
                return begin("online")
            except Exception as error:
                self._note(f"wandb cannot be reached ({_first_line(error)}); recording offline.")
        handle = begin("offline")
        self._note(f"wandb is recording offline; send it later with: wandb sync {run.path}/wandb/offline-run-*")
        return handle


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
