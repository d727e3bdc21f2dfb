"""The scripts as a user runs them: fresh processes, the toy game as a user's plug-in."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOY = ["--config-dir", str(ROOT / "tests" / "cfg"), "task=Toy", "engine=toy", "preset=smoke"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "SECRET_API_KEY": "canary-93b0"}


def script(*words, cwd, name="train", **kw) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=ENV, stdin=subprocess.DEVNULL, **kw)
