"""The calls are Isaac Gym's own, by its published stubs; what is absent says so; modules and the command line."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import pytest
import torch

from dima_isaac.gym import gymapi, gymtorch, gymutil, torch_utils
from dima_isaac.sim.rotations import quat_conj, quat_div, rotate, to_rpy

ROOT = Path(__file__).resolve().parents[2]
CALLS = [name for name in vars(gymapi.Gym) if not name.startswith("_")]


@pytest.fixture(scope="module")
def stub() -> dict[str, ast.ClassDef]:
    """The classes of Isaac Gym's stub, by name."""
    try:
        (found,) = [file for file in files("isaacgym-stubs") or () if file.name == "gymapi.pyi"]
    except PackageNotFoundError:
        pytest.skip("isaacgym-stubs is not installed (it is in the extra test)")
    tree = ast.parse(found.read_text().replace("def lambda(", "def lambda_("))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_takes_what_isaac_gym_s_takes(stub, name):
    forms = [node.args for node in stub["Gym"].body if isinstance(node, ast.FunctionDef) and node.name == name]
    assert forms
    takes = inspect.signature(vars(gymapi.Gym)[name]).parameters.values()
    needed = sum(p.default is p.empty for p in takes)
    same = [needed <= len(form.args) - len(form.defaults) and len(takes) == len(form.args) for form in forms]
    assert any(same) or forms[0].vararg  # the stub has no arguments of a few


@pytest.mark.parametrize(
    "kind", ["AssetOptions", "SimParams", "PhysXParams", "PlaneParams", "ForceSensorProperties", "RigidShapeProperties",
             "TendonProperties", "ActuatorProperties", "Transform", "Vec3", "Quat"]
)  # fmt: skip
def test_a_struct_has_no_member_that_isaac_gym_s_lacks(stub, kind):
    theirs = {node.target.id for node in stub[kind].body if isinstance(node, ast.AnnAssign)}
    theirs |= {node.name for node in stub[kind].body if isinstance(node, ast.FunctionDef)}
    assert vars(getattr(gymapi, kind)()).keys() <= theirs


def test_a_constant_is_named_as_in_isaac_gym(stub):
    for enum in ("DofDriveMode", "CoordinateSpace", "IndexDomain", "MeshType", "ImageType", "KeyboardInput", "UpAxis"):
        theirs = {node.target.id for node in stub[enum].body if isinstance(node, ast.AnnAssign)}
        assert {member.name for member in getattr(gymapi, enum)} <= theirs
    assert gymapi.DOF_MODE_EFFORT == 3 and gymapi.UP_AXIS_Z == 1  # programs have them as numbers in YAML


@pytest.mark.parametrize(
    ("where", "name", "words"),
    [
        (gymapi.acquire_gym(), "get_camera_image", "Gym.get_camera_image is not here"),
        (gymapi, "HeightFieldParams", "gymapi.HeightFieldParams is not here"),
        (gymutil, "draw_lines", "gymutil.draw_lines is not here"),
        (torch_utils, "slerp", "torch_utils.slerp is not here"),
    ],
)
def test_what_is_absent_names_itself_and_a_cure(where, name, words):
    with pytest.raises(AttributeError, match=f"{words}.*docs/gym.md.*under Isaac Gym itself"):
        getattr(where, name)
    assert not hasattr(where, name)


def test_the_page_lists_every_call():
    page = (ROOT / "docs" / "gym.md").read_text()
    assert [name for name in CALLS if f"`{name}`" not in page] == []


# ---- the command -----------------------------------------------------------------------------------------------


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dima_isaac.gym", *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_a_program_is_run_as_itself(tmp_path):
    script = tmp_path / "program.py"
    (tmp_path / "beside.py").write_text("VALUE = 3")
    script.write_text(
        "import sys\nfrom isaacgym import gymapi, gymtorch, gymutil\nfrom isaacgym.torch_utils import *\n"
        "import beside\n"
        "print(__name__, sys.argv[1:], beside.VALUE, np.__name__, gymapi.SIM_PHYSX.name)\nsys.exit(5)"
    )
    done = command("--threads", "1", str(script), "--task", "Ant")
    assert done.returncode == 5, done.stderr
    assert done.stdout == "__main__ ['--task', 'Ant'] 3 numpy SIM_PHYSX\n"


def test_the_command_s_own_mistakes_end_with_two(tmp_path):
    done = command(str(tmp_path / "none.py"))
    assert done.returncode == 2 and done.stderr.startswith("error: there is no program")
    for words in (["--engine", "physx"], ["--substeps", "-1"], ["--threads", "two"]):
        done = command(*words, "x.py")
        assert done.returncode == 2 and "Traceback" not in done.stderr


def test_isaacgym_is_no_module_outside():
    import importlib.util

    assert importlib.util.find_spec("isaacgym") is None


def test_arguments_and_settings(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "--sim_device", "cuda:1", "--pipeline", "cpu", "--num_envs", "7"])
    args = gymutil.parse_arguments(custom_parameters=[{"name": "--num_envs", "type": int, "default": 4}])
    assert (args.num_envs, args.use_gpu, args.use_gpu_pipeline, args.compute_device_id) == (7, True, False, 1)
    assert args.physics_engine == gymapi.SIM_PHYSX
    params = gymapi.SimParams()
    gymutil.parse_sim_config({"dt": 0.02, "gravity": [0, 0, -1], "physx": {"num_threads": 3}}, params)
    assert params.dt == 0.02 and list(params.gravity) == [0, 0, -1] and params.physx.num_threads == 3
    with pytest.raises(ValueError, match="'tpu' is neither cpu nor cuda"):
        gymutil.parse_device_str("tpu")
    with pytest.raises(NotImplementedError, match="randomize=False"):
        gymutil.apply_random_samples()


# ---- values ----------------------------------------------------------------------------------------------------


def quats(n: int = 20) -> torch.Tensor:
    q = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    return q / q.norm(dim=-1, keepdim=True)


def test_quaternions_are_the_engines():
    a, b, v = quats(), quats().flip(0), torch.randn(20, 3)
    close = lambda x, y: torch.allclose(x, y, atol=1e-5)
    assert close(torch_utils.quat_mul(a, b), quat_div(a, quat_conj(b)))
    assert close(torch_utils.quat_rotate(a, v), rotate(a, v))
    assert close(torch_utils.quat_rotate_inverse(a, torch_utils.quat_apply(a, v)), v)
    assert close(torch.stack(torch_utils.get_euler_xyz(a), -1), to_rpy(a))
    back = torch_utils.quat_from_euler_xyz(*torch_utils.get_euler_xyz(a))
    assert close(back * (back * a).sum(-1, keepdim=True).sign(), a)
    half = torch_utils.quat_from_angle_axis(torch.tensor([torch.pi]), torch.tensor([[0.0, 0.0, 2.0]]))
    assert close(half, torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
    assert close(torch_utils.quat_axis(half, 0), torch.tensor([[-1.0, 0.0, 0.0]]))
    q, t = torch_utils.tf_inverse(a, v)
    q, t = torch_utils.tf_combine(q, t, a, v)
    assert close(t, torch.zeros(20, 3)) and close(q[:, 3].abs(), torch.ones(20))


def test_functions_can_be_scripted():
    scripted = torch.jit.script(torch_utils.quat_rotate_inverse)
    a, v = quats(), torch.randn(20, 3)
    assert torch.allclose(scripted(a, v), torch_utils.quat_rotate_inverse(a, v))
    torch.jit.script(torch_utils.scale), torch.jit.script(torch_utils.get_euler_xyz)


def test_scaling():
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([3.0, 4.0])
    assert torch_utils.scale(torch.tensor([0.0, 1.0]), low, high).tolist() == [1.0, 4.0]
    assert torch_utils.unscale(torch.tensor([1.0, 4.0]), low, high).tolist() == [0.0, 1.0]
    assert torch_utils.get_axis_params(0.5, 2) == [0.0, 0.0, 0.5]
    assert torch_utils.normalize_angle(torch.tensor([1.5 * torch.pi])).item() == pytest.approx(-0.5 * np.pi)


def test_poses():
    quarter = gymapi.Quat.from_axis_angle(gymapi.Vec3(0, 0, 2), np.pi / 2)
    pose = gymapi.Transform(gymapi.Vec3(1, 0, 0), quarter)
    assert list(pose.transform_point(gymapi.Vec3(1, 0, 0))) == pytest.approx([1, 1, 0])
    assert list(pose.inverse() * pose) == pytest.approx([0, 0, 0, 0, 0, 0, 1], abs=1e-12)
    assert quarter.to_euler_zyx() == pytest.approx([0, 0, np.pi / 2])
    at = gymapi.Vec3(1, 2, 3)
    pose.p = at
    at.x = 9.0  # members are assigned by value
    pose.p.y = 5.0  # and are members
    assert list(pose.p) == [1, 5, 3]


def test_tensors_share_memory():
    own = torch.zeros(3)
    gymtorch.wrap_tensor(gymtorch.unwrap_tensor(own))[1] = 4.0
    assert own.tolist() == [0.0, 4.0, 0.0]
    with pytest.raises(TypeError, match="acquire_"):
        gymtorch.wrap_tensor(own)
