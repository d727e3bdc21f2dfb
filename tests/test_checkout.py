"""Whose ``tasks/``, ``cfg/`` and ``zoo/`` are imported."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dima_isaac"

# what an editable install of another clone leaves in every interpreter: a finder with its own folders
PROGRAM = """
import importlib.util, sys
class Other:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, OTHER) if name == "dima_isaac.tasks" else None
sys.meta_path.append(Other)
sys.path.insert(0, HERE)
import dima_isaac.tasks
print(dima_isaac.tasks.whose)
"""


FOLDERS = {"clone": {"tasks": "beside"}, "wheel": {"tasks": "stranger", "dima_isaac/tasks": "inside"}}


@pytest.mark.parametrize(("layout", "whose"), [("clone", "beside"), ("wheel", "inside")])
def test_a_clone_has_its_own_tasks_and_a_wheel_what_it_carries(tmp_path, layout, whose):
    package = tmp_path / "dima_isaac"
    package.mkdir()
    (package / "__init__.py").write_text("from dima_isaac import _checkout")
    shutil.copy(PACKAGE / "_checkout.py", package)
    for folder, owner in FOLDERS[layout].items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(f"whose = {owner!r}")
    (tmp_path / "other.py").write_text("whose = 'other'")
    program = PROGRAM.replace("OTHER", repr(str(tmp_path / "other.py"))).replace("HERE", repr(str(tmp_path)))
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == whose
