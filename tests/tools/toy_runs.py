"""Words that name the toy game, and the reading of a tool's last line."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOY = ["--config-dir", str(ROOT / "tests" / "cfg")]


def last_json(text: str) -> dict[str, Any]:
    """The JSON object in the last line of what a tool printed."""
    return json.loads(text.strip().splitlines()[-1])
