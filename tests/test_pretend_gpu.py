"""Tasks and learners on a device that refuses tensors of the host, which a machine without a GPU can prove."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pretend_gpu import AVAILABLE
from tests.pretend_gpu_cases import cases

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not AVAILABLE, reason="this torch lets nobody pretend a device"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def wrong() -> dict[str, str]:
    """Case -> its traceback, or ''. In a process of its own: torch learns of a device for good."""
    words = [sys.executable, "-m", "tests.pretend_gpu_cases"]
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(words, capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("case", cases())
def test_no_operation_mixes_host_and_device_tensors(case: str, wrong: dict[str, str]) -> None:
    assert not wrong[case], wrong[case]
