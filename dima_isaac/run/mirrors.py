"""A run's rows and videos again elsewhere, at Weights & Biases or for TensorBoard; neither can stop the run."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from dima_isaac.config import RunConfig, WandbMode
from dima_isaac.run.folder import RunFolder
from dima_isaac.schema import as_dict


class Mirror(ABC):
    """A destination for rows and videos. Its first failure is reported; after it nothing more is sent."""

    name: ClassVar[str]

    def __init__(self, run: RunFolder, cfg: RunConfig, note: Callable[[str], None]) -> None:
        self._note = note
        self._other: Any = None
        try:
            self._other = self._start(run, cfg)
        except Exception as error:  # whatever it is, the run does not depend on it
            note(f"{self.name} is off: {_first_line(error)}.")

    @abstractmethod
    def _start(self, run: RunFolder, cfg: RunConfig) -> Any:
        """What rows are sent to."""

    @abstractmethod
    def _write(self, row: dict[str, float], env_steps: int) -> None: ...

    @abstractmethod
    def _show(self, path: Path, env_steps: int) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    def log(self, row: Mapping[str, float | None], env_steps: int) -> None:
        """Send a row's finite values."""
        self._send(lambda: self._write({name: value for name, value in row.items() if value is not None}, env_steps))

    def video(self, path: Path, env_steps: int) -> None:
        """Send a video of an evaluation."""
        self._send(lambda: self._show(path, env_steps))

    def close(self) -> None:
        """Send what is left."""
        self._send(self._finish)
        self._other = None

    def _send(self, action: Callable[[], None]) -> None:
        if self._other is None:
            return
        try:
            action()
        except Exception as error:
            self._other = None
            self._note(f"{self.name} stopped: {_first_line(error)}; training goes on, metrics.jsonl is complete.")


class Wandb(Mirror):
    """Weights & Biases, offline in the run's ``wandb/`` unless ``wandb.mode=online`` and it can be reached."""

    name = "wandb"

    def _start(self, run: RunFolder, cfg: RunConfig) -> Any:
        # how long the end waits for a slow server, in variables because releases before this setting refuse its name
        os.environ.setdefault("WANDB_FINISH_TIMEOUT", "30")
        os.environ.setdefault("WANDB_FINISH_TIMEOUT_RAISES", "true")
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

        why = ""
        if cfg.wandb.mode is WandbMode.online:
            try:
                return begin("online")
            except Exception as error:
                why = f"cannot be reached ({_first_line(error)}) and "
                wandb.teardown()  # its service holds the run's id until then
        handle = begin("offline")
        self._note(f"wandb {why}is recording offline; send it later with: wandb sync {run.path}/wandb/offline-run-*")
        return handle

    def _write(self, row: dict[str, float], env_steps: int) -> None:
        self._other.log(row, step=env_steps)

    def _show(self, path: Path, env_steps: int) -> None:
        import wandb

        self._other.log({"eval/video": wandb.Video(str(path), format=path.suffix[1:])}, step=env_steps)

    def _finish(self) -> None:
        self._other.finish()


class TensorBoard(Mirror):
    """Scalars in the run's ``tensorboard/``, by the writer that comes with torch."""

    name = "tensorboard"

    _writer: Any = None

    def _start(self, run: RunFolder, cfg: RunConfig) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        folder = str(run.path / "tensorboard")
        self._note(f"TensorBoard shows the run: tensorboard --logdir {folder}")
        # of a run that was killed, purge_step hides later rows, which its continuation writes again
        return lambda env_steps: SummaryWriter(folder, purge_step=env_steps)

    def _write(self, row: dict[str, float], env_steps: int) -> None:
        self._writer = self._writer or self._other(env_steps)
        for name, value in row.items():
            if name != "env_steps":
                self._writer.add_scalar(name, value, env_steps)

    def _show(self, path: Path, env_steps: int) -> None:
        """Nothing: TensorBoard would decode the video and store it once more, as a GIF."""

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
