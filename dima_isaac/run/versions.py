"""What a run was made with: commit, Python and package versions, and nothing of the environment's variables."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_LONGEST = 1_000_000  # characters of a diff


def versions() -> dict[str, Any]:
    """Names, numbers, and what the checkout's files differ in from its commit (without the text of untracked files)."""
    changed = _git("status", "--porcelain").splitlines()
    packages = {dist.metadata["Name"]: dist.version for dist in metadata.distributions() if dist.metadata["Name"]}
    return {
        "git": _git("rev-parse", "HEAD"),
        "git_dirty": bool(changed),
        "git_untracked": [line[3:] for line in changed if line.startswith("??")],
        "git_diff": _git("diff", "HEAD")[:_LONGEST] if changed else "",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def _git(*words: str) -> str:
    """The output of git for this checkout, '' if there is none."""
    if not (_ROOT / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *words], capture_output=True, text=True, timeout=10, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.rstrip() if done.returncode == 0 else ""
