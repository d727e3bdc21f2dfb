"""The directions of import, read from the source: the one architecture document that cannot go stale."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dima_isaac"

BASE = {"types", "errors", "schema", "ranks"}
MAY = {  # layer -> what it may import beside itself
    "types": set(),
    "errors": set(),
    "schema": {"errors"},
    "ranks": {"errors"},
    "sim": BASE,
    "envs": BASE | {"sim"},
    "gym": BASE | {"sim"},
    "replay": BASE,
    "nn": BASE,
    "world_model": BASE | {"nn"},
    "agent": BASE | {"nn"},
    "config": {"errors", "schema", "world_model.config", "agent.config", "replay.config", "training.config"},
    "run": BASE | {"sim", "envs", "replay", "world_model", "agent", "config", "cfg", "zoo"},
    "training": BASE | {"envs", "replay", "nn", "world_model", "agent", "config", "run"},
    "tools": BASE | {"sim", "envs", "replay", "nn", "world_model", "agent", "config", "run", "training"},
    "bench": BASE | {"sim", "envs", "nn", "world_model", "agent", "config", "run", "training", "tools.table"},
    "cli": BASE | {"__version__", "config", "run", "training", "tools", "bench"},
    "__init__": {"_checkout", "run", "envs", "tools", "cli"},
    "_checkout": set(),
    "tasks": BASE | {"sim", "envs"},
}
PHYSICS = {"mujoco", "warp", "mujoco_warp", "isaacgym"}


def imports(path: Path) -> set[str]:
    """Absolute names of everything that ``path`` imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            assert node.level == 0 or "tasks" in path.parts, f"{path}: relative imports are for tasks only"
            if node.level == 0:
                names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def sources() -> list[tuple[str, Path]]:
    """(layer, file) of the library and the tasks."""
    found = [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in PACKAGE.rglob("*.py")]
    return found + [("tasks", path) for path in (ROOT / "tasks").rglob("*.py")]


@pytest.mark.parametrize(("layer", "path"), sources(), ids=lambda value: str(getattr(value, "name", value)))
def test_every_import_points_down(layer, path):
    assert layer in MAY, f"{path} belongs to no layer of the table"
    for name in imports(path):
        if not name.startswith("dima_isaac."):
            continue
        target = name.removeprefix("dima_isaac.")
        if layer == "tasks" and target.startswith("tasks"):
            continue
        if layer != "tasks":
            assert not target.startswith("tasks"), f"{path} imports a task"
        allowed = MAY[layer] | {layer}
        assert any(target == one or target.startswith(one + ".") for one in allowed), f"{path} imports {name}"


def test_no_package_imports_itself_through_others():
    """``config.py`` files apart: they import each other's and nothing else of a package."""
    edges: dict[str, set[str]] = {}
    for layer, path in sources():
        if path.name != "config.py":
            own = [name.split(".") for name in imports(path) if name.startswith("dima_isaac.")]
            edges.setdefault(layer, set()).update(words[1] for words in own if words[2:3] != ["config"])
            edges[layer].discard(layer)
    TopologicalSorter(edges).prepare()  # raises CycleError


@pytest.mark.parametrize(("layer", "path"), sources(), ids=lambda value: str(getattr(value, "name", value)))
def test_physics_engines_are_named_in_sim_only(layer, path):
    named = {name.partition(".")[0] for name in imports(path)} & PHYSICS
    if layer == "gym":  # reads assets with MuJoCo, whatever the engine
        named -= {"mujoco"}
    assert layer == "sim" or not named, f"{path} imports {named}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")) + sorted(PACKAGE.rglob("config.py")))
def test_init_and_config_files_do_not_import_torch(path):
    top = {name.partition(".")[0] for name in imports(path)}
    assert not top & {"torch", "numpy", "mujoco"}


def test_the_command_line_starts_without_torch():
    code = "import sys, dima_isaac, dima_isaac.cli.main, dima_isaac.cli.args, dima_isaac.run.folder\n"
    code += (
        "print([name for name in ('torch', 'numpy', 'hydra', 'wandb', 'mujoco', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_has_a_docstring():
    for _, path in sources():
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_the_map_names_every_package_and_nothing_else():
    """The docstring of ``dima_isaac``: paths at the beginning of indented lines."""
    text = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text()))
    named = set(re.findall(r"^    (\S+(?:/|\.py))  ", text, re.MULTILINE))
    packages = {f"{path.parent.relative_to(PACKAGE)}/" for path in PACKAGE.rglob("*/__init__.py")}
    packages |= {"tasks/", "cfg/", "zoo/"}
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "_checkout.py"}
    assert {name for name in named if name.endswith("/")} == packages
    assert modules <= named
    assert all((PACKAGE / name).exists() or (ROOT / name).exists() for name in named)
