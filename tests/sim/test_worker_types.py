"""The worker's calls against the published stubs of Isaac Gym: names, arguments and their types."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest

from dima_isaac.sim.isaacgym import process

pytestmark = pytest.mark.slow

WORKER = Path(process.__file__).with_name("worker.py")
CONFIG = """[mypy]
follow_imports = silent
[mypy-isaacgym.*]
ignore_errors = True
"""


def errors(source: str, folder: Path) -> list[str]:
    """mypy's complaints about ``source``."""
    try:
        (stub,) = [file for file in files("isaacgym-stubs") or () if file.name == "gymapi.pyi"]
    except PackageNotFoundError:
        pytest.skip("isaacgym-stubs is not installed (it is in the extra test)")
    package = folder / "isaacgym"
    package.mkdir()
    (package / "__init__.pyi").touch()
    # two properties have the name of a keyword
    (package / "gymapi.pyi").write_text(stub.read_text().replace("def lambda(", "def lambda_("))
    (folder / "mypy.ini").write_text(CONFIG)
    (folder / "worker.py").write_text(source)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "worker.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def test_the_worker_calls_isaac_gym_as_its_stubs_say(tmp_path: Path) -> None:
    assert errors(WORKER.read_text(), tmp_path) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("gym.fetch_results(sim, True)", "gym.fetch_results(sim)"),  # an argument too few
        ("gym.begin_aggregate(env, bodies, shapes, True)", "gym.begin_aggregate(env, bodies, True, assets)"),
        ("params.up_axis =", "params.upaxis ="),  # no such field
        ("gym.prepare_sim(self.sim)", "gym.prepare_simulation(self.sim)"),
        ("gymapi.DTYPE_UINT32", "gymapi.DTYPE_INT32"),
        ("tensor.data_address, tensor.own_data = start + 4 * place,", "tensor.data_address, tensor.own_data = None,"),
    ],
)
def test_a_wrong_call_is_found(tmp_path: Path, right: str, wrong: str) -> None:
    source = WORKER.read_text()
    assert source.count(right) == 1
    found = errors(source.replace(right, wrong), tmp_path)
    assert len(found) == 1 and re.match(r"worker\.py:\d+: error: ", found[0])
