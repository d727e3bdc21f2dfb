"""What only the GPU engine has: buffers that can overflow, a loop without synchronisation, float32 raw fields."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from dima_isaac.errors import UsageError
from dima_isaac.sim.scene import Actor, Box, Ellipsoid, Scene
from tests.guard import no_synchronisation
from tests.sim.toss import BALL, KINDS, TOSS, build, drive, everywhere, on, only, pose, views

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # the first run on a machine compiles Warp's kernels
WARP = KINDS[1:]


@pytest.fixture(params=WARP)
def kind(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("mujoco_warp", reason="the extra gpu is not installed")
    return request.param


def test_a_step_waits_for_nothing(kind: str) -> None:
    engine = build(kind, TOSS, 4)
    mask, never = only(engine, 1), everywhere(engine, False)
    place, state = pose(engine, 0.0, 0.0, 0.4), engine.dof_pos.clone()
    with no_synchronisation(engine.device):
        for hold in (never, mask):
            engine.set_dof_target(state)
            engine.set_dof_state(mask, state, state)
            engine.set_root_state(mask, BALL, place)
            engine.step(hold)
            engine.refresh(mask)
    assert float(engine.root_state[1, BALL, 2]) == pytest.approx(0.4)


def test_full_buffers_are_counted(kind: str) -> None:
    """Two contacts in each of two worlds (ball on table, ball on ball) do not fit into a list of one each."""
    ball = Ellipsoid((0.05, 0.05, 0.05))
    actors = [Actor("table", Box((0.4, 0.4, 0.2)), pos=(0, 0, 0.1), fixed=True)]
    actors += [Actor(f"ball{k}", ball, pos=(0.1 * k, 0, 0.249)) for k in range(3)]
    roomy, tight = (build(kind, Scene(actors=actors), 2, nconmax=size) for size in (0, 1))
    for engine in (roomy, tight):
        engine.step(everywhere(engine, False))
    assert int(roomy.stats()["contact_overflow"]) == 0
    dropped = int(tight.stats()["contact_overflow"])  # one for each world's step; on a GPU one world may take all room
    assert dropped == 2 or (tight.device.type == "cuda" and dropped == 1)
    tight.step(everywhere(tight, True))
    assert int(tight.stats()["contact_overflow"]) == dropped  # held worlds do not count


def test_rows_that_do_not_fit_are_counted(kind: str) -> None:
    engine = build(kind, TOSS, 3, njmax=1)
    drive(engine, 60)
    assert int(engine.stats()["contact_overflow"]) > 0


def test_buffers_are_sized_for_the_scene() -> None:
    pytest.importorskip("mujoco_warp", reason="the extra gpu is not installed")
    from dima_isaac.sim.compiled import compile_scene
    from dima_isaac.sim.config import MujocoWarpConfig
    from dima_isaac.sim.warp.model import contact_buffer, row_buffer
    from dima_isaac.tasks.bidexhands.catch import Catch, CatchConfig

    small = compile_scene(TOSS, MujocoWarpConfig(), sensors=False).model
    assert contact_buffer(small) == 16  # the least
    assert row_buffer(small, 16) == 1 + 6 * 17 // 2  # one limit, pyramids of six rows
    hands = compile_scene(Catch(CatchConfig()).scene(), MujocoWarpConfig(), sensors=False).model
    contacts = contact_buffer(hands)
    # the largest ever seen with random actions: 26 contacts and 174 rows
    assert 2 * 26 < contacts < 128 and 174 * 1.2 < row_buffer(hands, contacts) < 512


@pytest.mark.parametrize("field", ["qpos", "qvel", "qacc_warmstart", "qfrc_applied"])
def test_a_nan_in_warps_arrays_stays_where_it_is(kind: str, field: str) -> None:
    broken, control = build(kind, TOSS, 8), build(kind, TOSS, 8)
    for engine in (broken, control):
        drive(engine, 20)
    broken._live(field)[3] = math.nan
    for engine in (broken, control):
        drive(engine, 2, seed=5)
    assert int(broken.stats()["nonfinite"]) >= (field in ("qpos", "qvel"))
    others = torch.arange(8) != 3
    for mine, theirs in zip(views(broken), views(control), strict=True):
        assert torch.allclose(mine[others].float(), theirs[others].float(), atol=1e-4)
    assert all(torch.isfinite(view).all() for view in views(broken))


def test_views_share_memory_with_warp(kind: str) -> None:
    engine = build(kind, TOSS, 2)
    import warp as wp

    assert wp.to_torch(engine._packed).data_ptr() == engine.root_state.untyped_storage().data_ptr()
    engine._target.fill_(0.01)
    engine.step(everywhere(engine, False))
    assert np.allclose(engine._d.ctrl.numpy(), 0.01)


def test_a_scene_that_warp_cannot_simulate_names_the_alternative(kind: str, tmp_path, monkeypatch) -> None:
    file = tmp_path / "world.xml"
    file.write_text('<mujoco><worldbody><body><freejoint/><geom size=".1"/></body></worldbody></mujoco>')
    with pytest.raises(UsageError, match="no field 'qLDiagInvSqrt'; engine=mujoco has"):
        build(kind, Scene(world=str(file), fields=["qLDiagInvSqrt"], frame_skip=1), 1)

    def refuse(*args: object, **options: object) -> None:  # what it cannot do differs from version to version
        raise NotImplementedError("Flexes are not supported.")

    monkeypatch.setattr("mujoco_warp.put_model", refuse)
    with pytest.raises(UsageError, match=r"Flexes are not supported\. engine=mujoco can"):
        build(kind, Scene(world=str(file), fields=["qpos"], frame_skip=1), 1)


@pytest.mark.parametrize("module", ["state_kernels", "view_kernels"])
def test_the_kernels_compile_for_a_gpu(tmp_path, module: str) -> None:
    """Warp brings NVIDIA's compiler, which needs no GPU and is stricter than the one for CPUs."""
    pytest.importorskip("mujoco_warp", reason="the extra gpu is not installed")
    import warp as wp

    if wp.get_cuda_toolkit_version() is None:
        pytest.skip("a Warp without CUDA")
    (binary,) = wp.compile_aot_module(
        importlib.import_module(f"dima_isaac.sim.warp.{module}"), arch=90, module_dir=tmp_path, use_ptx=False
    )
    assert binary.name.endswith(".sm90.cubin") and binary.stat().st_size > 10_000


def test_a_driver_that_is_too_old_for_warp_is_reported(monkeypatch) -> None:
    pytest.importorskip("mujoco_warp", reason="the extra gpu is not installed")
    import warp as wp

    monkeypatch.setattr(wp, "is_cuda_available", lambda: False)
    with pytest.raises(UsageError, match=r"torch sees a GPU, but warp-lang .* built for CUDA \d+\.\d+.*engine=mujoco"):
        build("mujoco_warp on cuda", TOSS, 1)


def test_fields_that_cannot_be_written_are_refused(kind: str) -> None:
    engine = build(kind, TOSS, 1)
    with pytest.raises(KeyError, match=r"xpos.*cannot be written.*qpos"):
        engine.set_field(everywhere(engine), "xpos", on(engine, [[0.0]]))


def test_the_command_line_names_the_extra_that_is_missing(tmp_path) -> None:
    code = "import sys\nsys.modules['mujoco_warp'] = None\n"
    code += "import importlib.util as u\nfind = u.find_spec\n"
    code += "u.find_spec = lambda name, *a: None if name == 'mujoco_warp' else find(name, *a)\n"
    code += "from dima_isaac.cli.main import main\n"
    code += f"sys.exit(main(['train', 'task=ShadowHandOver', 'engine=mujoco_warp', 'run_dir={tmp_path}/run']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "engine=mujoco_warp needs mujoco_warp" in done.stderr + done.stdout
    assert "pip install 'dima-isaac[gpu]'" in done.stderr + done.stdout and "Traceback" not in done.stderr
