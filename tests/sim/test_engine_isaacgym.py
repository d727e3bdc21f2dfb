"""The Isaac Gym engine and its worker against a stand-in that enforces the rules of the real one's calls."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from dima_isaac import make
from dima_isaac.config import RunConfig
from dima_isaac.errors import SimulationError, UsageError, WorkerError
from dima_isaac.run.catalog import Catalog
from dima_isaac.run.resolve import resolve_run
from dima_isaac.sim.config import IsaacGymConfig, MujocoConfig, Pipeline
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.isaacgym import process, shared_memory
from dima_isaac.sim.isaacgym.engine import IsaacGymEngine
from dima_isaac.sim.isaacgym.process import INTERPRETER_VARIABLE as VARIABLE
from dima_isaac.sim.isaacgym.process import WorkerProcess
from dima_isaac.sim.mujoco.engine import MujocoEngine
from dima_isaac.sim.rotations import from_rpy, quat_conj, rotate
from dima_isaac.sim.scene import Actor, Box, Mjcf, Scene, Variation
from tests.sim.quaternions import quat_mul
from tests.sim.toss import BALL, BOX, LOPSIDED, MARK, TOSS, everywhere, on, only, pose

pytestmark = pytest.mark.slow

FAKE = Path(__file__).with_name("fake_isaacgym")
WORKER = Path(process.__file__).with_name("worker.py")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that can import the stand-in, as the user's would the real one."""
    program = tmp_path_factory.mktemp("bin") / "python3.8"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{FAKE}" exec "{sys.executable}" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return str(program)


@pytest.fixture
def python(program: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """That interpreter, named where the engine looks for it."""
    monkeypatch.setenv(VARIABLE, program)
    monkeypatch.delenv("FAKE_GYM", raising=False)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it would empty C's buffers, too
    return program


@pytest.fixture
def build(python: str, monkeypatch: pytest.MonkeyPatch):
    """A function that builds a scene; what it built is closed at the end."""
    built = []

    def make_one(scene: Scene = TOSS, envs: int = 3, chaos: str = "", device: str = "cpu", **cfg) -> IsaacGymEngine:
        monkeypatch.setenv("FAKE_GYM", chaos)
        built.append(IsaacGymEngine(scene, envs, IsaacGymConfig(**cfg), torch.device(device)))
        return built[-1]

    yield make_one
    for engine in built:
        engine.close()


@pytest.fixture
def gpu_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the worker take host memory for a GPU's: it goes through the calls of the GPU pipeline."""
    call = WorkerProcess.call

    def called(self: WorkerProcess, command: dict, timeout: float) -> dict:
        if command["do"] == "create":
            command |= {"device": "cuda:1", "gpu_pipeline": True}
        elif command["do"] == "share":
            command["handle"] = command["path"].encode().ljust(64, b"\0").hex()
        return call(self, command, timeout)

    monkeypatch.setattr(WorkerProcess, "call", called)


@pytest.fixture(scope="module")
def shared(program: str):
    """One engine for the tests that put everything in its place themselves, and how it began."""
    engine = IsaacGymEngine(TOSS, 3, IsaacGymConfig(python=program), torch.device("cpu"))
    yield engine, engine.state_dict()
    engine.close()


@pytest.fixture
def toss(shared: tuple[IsaacGymEngine, dict]) -> IsaacGymEngine:
    """Three small worlds as they began."""
    engine, start = shared
    engine.load_state_dict(start)
    return engine


COUPLED = """<mujoco><worldbody><body name="base"><geom size="0.02" mass="1"/>
<body name="arm" pos="0 0 0.1"><joint name="one" axis="0 1 0"/><geom size="0.02" mass="1"/>
<body name="hand" pos="0 0 0.1"><joint name="two" axis="0 1 0"/><geom size="0.02" mass="1"/></body></body>
</body></worldbody><tendon><fixed name="coupling" limited="true" range="0 1">
<joint joint="one" coef="1"/><joint joint="two" coef="1"/></fixed></tendon></mujoco>"""

RIG = Scene(actors=[Actor("rig", Mjcf(xml=COUPLED))], force_sensors=["rig/arm"])
"""One actor whose making takes every call of the worker."""


def still(engine: Engine) -> torch.Tensor:
    return everywhere(engine, False)


FLIGHT = Scene(
    actors=[Actor("stick", Mjcf(xml=LOPSIDED), gravity=False)], links=["stick/stick"], control_dt=1e-3, ground=False
)


def test_thirteen_numbers_of_a_lopsided_body(build) -> None:
    check_conventions(build(FLIGHT, 1, substeps=1))


def check_conventions(engine: IsaacGymEngine) -> None:
    """Frames at the link origin, linear velocity at the centre of mass, by finite differences."""
    start = on(engine, [[0.1, 0.2, -0.1, *from_rpy(0.3, -0.7, 1.1), 0.4, -0.2, 0.9, 1.5, -2.0, 0.7]])
    engine.set_root_state(everywhere(engine), 0, start)
    engine.refresh(everywhere(engine))
    assert torch.equal(engine.root_state[:, 0], start)
    frames = []
    for _ in range(3):
        engine.step(still(engine))
        frames.append(engine.body_state[0, 0].double().cpu())
    # the asset's own turn of its first body is part of the link, not of the actor
    turn = torch.tensor([0.6, 0.0, 0.0, 0.8], dtype=torch.float64)
    root = engine.root_state[0, 0].double().cpu()
    assert torch.allclose(frames[-1][3:7], quat_mul(root[None, 3:7], turn[None])[0], atol=1e-5)
    com = torch.tensor([[0.3, -0.1, 0.2]], dtype=torch.float64)
    centres = [frame[:3] + rotate(frame[None, 3:7], com)[0] for frame in frames]
    assert torch.allclose((centres[2] - centres[0]) / 2e-3, frames[1][7:10], atol=2e-3)
    assert torch.allclose(frames[1][7:10], start[0, 7:10].double().cpu(), atol=1e-2)  # it is free: nothing acts on it
    spin = quat_mul(frames[2][None, 3:7], quat_conj(frames[0][None, 3:7]))[0]
    assert torch.allclose(2 * spin[:3] / 2e-3, frames[1][10:13], atol=5e-3)


def test_the_same_motion_as_on_mujoco(toss) -> None:
    """Names, drives, limits and units have the same meaning: a driven pendulum and a ball that falls on a table."""
    mine, theirs = toss, MujocoEngine(TOSS, 3, MujocoConfig(threads=1))
    assert mine.dof_names == theirs.dof_names and mine.link_names == theirs.link_names
    assert torch.equal(mine.actuator_dofs, theirs.actuator_dofs) and torch.equal(mine.dof_upper, theirs.dof_upper)
    for k in range(40):
        for engine in (mine, theirs):
            engine.set_dof_target(torch.tensor([[0.03], [-0.02], [0.01]]))
            engine.step(still(engine))
        assert torch.allclose(mine.dof_pos, theirs.dof_pos, atol=0.01), k
        assert torch.allclose(mine.body_state[:, 0, :3], theirs.body_state[:, 0, :3], atol=0.02), k
    assert torch.allclose(mine.root_state[:, BALL, :3], theirs.root_state[:, BALL, :3], atol=2e-3)
    weight, other = mine.force_sensor[:, 0, :3].norm(dim=-1), theirs.force_sensor[:, 0, :3].norm(dim=-1)
    assert torch.allclose(weight, other, rtol=0.2)
    assert (mine.dof_force.abs() > 0.01).all()


def test_resets_reach_only_their_environments(toss) -> None:
    engine = toss
    for _ in range(5):
        engine.step(still(engine))
    before = engine.root_state.clone()
    engine.set_root_state(only(engine, 1), BALL, pose(engine, 0.1, 0.2, 0.9))
    engine.set_dof_state(only(engine, 1), torch.full((3, 1), 0.7), torch.full((3, 1), -0.3))
    engine.set_root_state(only(engine, 1), MARK, pose(engine, 0.0, 0.0, 2.0))
    engine.step(only(engine, 1))
    assert torch.equal(engine.root_state[1, BALL], pose(engine, 0.1, 0.2, 0.9)[1])
    assert engine.dof_pos[1, 0] == pytest.approx(0.7) and engine.dof_vel[1, 0] == pytest.approx(-0.3)
    assert not engine.dof_force[1].any() and not engine.force_sensor[1].any()
    assert engine.root_state[0, BALL, 2] < before[0, BALL, 2]
    # a held environment has not moved: its next step begins where it was put
    engine.step(still(engine))
    fall = 0.9 - engine.root_state[1, BALL, 2]
    assert 0.5 * 9.81 / 60**2 < fall < 2.5 * 9.81 / 60**2
    assert torch.allclose(engine.root_state[1, MARK, :3], torch.tensor([0.0, 0.0, 2.0]), atol=1e-6)


def test_refresh_shows_what_was_put_without_a_step(toss) -> None:
    engine = toss
    for _ in range(5):
        engine.step(still(engine))
    seen = engine.root_state.clone()
    engine.set_root_state(only(engine, 2), BALL, pose(engine, 0.1, 0.2, 0.9))
    engine.refresh(only(engine, 2))
    assert torch.equal(engine.root_state[:2], seen[:2])
    assert torch.equal(engine.root_state[2, BALL], pose(engine, 0.1, 0.2, 0.9)[2])
    engine.set_dof_state(only(engine, 2), torch.full((3, 1), -0.03), torch.zeros(3, 1))
    engine.set_dof_target(torch.full((3, 1), -0.03))
    engine.refresh(only(engine, 2))  # the root that was staged before is still to come
    engine.step(still(engine))
    assert abs(engine.root_state[2, BALL, 2] - 0.9) < 0.01 and abs(engine.dof_pos[2, 0] + 0.03) < 0.03


def test_markers_pass_through_each_other(build) -> None:
    engine = build(Scene(actors=[Actor(name, Box((0.1, 0.1, 0.1)), marker=True) for name in ("one", "other")]), 2)
    engine.step(still(engine))
    assert engine.root_state[..., :3].abs().max() < 1e-6


def test_a_wrench_acts_for_one_step(build) -> None:
    scene = Scene(actors=[Actor("box", Mjcf(xml=BOX), gravity=False, wrench="box")], ground=False)
    engine = build(scene, 2)
    engine.apply_force(0, torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, -4.0]]), torch.zeros(2, 3))
    engine.refresh(everywhere(engine))  # it waits for a step
    engine.step(still(engine))
    speed = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, -4.0]]) / 2.0 / 60.0
    assert torch.allclose(engine.root_state[:, 0, 7:10], speed, atol=1e-4)
    engine.step(still(engine))
    assert torch.allclose(engine.root_state[:, 0, 7:10], speed, atol=1e-4)


def test_a_broken_environment_is_reset_and_affects_no_other(toss, build) -> None:
    whole, broken = toss, build(chaos="nan=3@1")
    for k in range(6):
        for engine in (whole, broken):
            engine.step(still(engine))
        assert broken.bad.tolist() == [False, k == 2, False]
        for view in ("root_state", "body_state", "dof_pos", "dof_vel", "dof_force", "force_sensor"):
            mine, theirs = getattr(broken, view), getattr(whole, view)
            assert torch.isfinite(mine).all() and torch.equal(mine[[0, 2]], theirs[[0, 2]])
    assert int(broken.stats()["nonfinite"]) == 1 and int(whole.stats()["nonfinite"]) == 0
    # three steps after the third: where the others were after three
    assert broken.root_state[1, BALL, 2] > whole.root_state[1, BALL, 2]


def test_the_gpu_pipeline_makes_the_same_calls_on_its_device(toss, build, gpu_worker) -> None:
    """Through CUDA IPC and the driver's copies; tensors that are on another device are refused."""
    engine = build()
    assert "GPU pipeline: True" in engine._worker._tail()
    for k in range(3):
        for one in (toss, engine):
            one.set_dof_target(torch.full((3, 1), 0.1 * k))
            one.set_root_state(only(one, k), BALL, pose(one, 0.1, 0.2, 0.9))
            one.step(only(one, 2))
        for view in ("root_state", "body_state", "dof_pos", "dof_vel", "dof_force"):
            assert torch.allclose(getattr(toss, view), getattr(engine, view), atol=1e-4), view


def test_physx_on_a_gpu_with_the_cpu_pipeline(build) -> None:
    engine = build(device="cuda:0", pipeline=Pipeline.cpu)
    assert "PhysX on a GPU: True, GPU pipeline: False" in engine._worker._tail()
    engine.step(still(engine))
    assert engine.device.type == "cpu" and engine.capabilities.on_host and engine.root_state[0, BALL, 9] < -0.1


def test_gpu_memory_is_shared_in_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA IPC opens the driver's whole block of 2 MiB, so nothing else may lie in it."""
    asked = []
    monkeypatch.setattr(shared_memory, "_on_device", lambda n, _: (asked.append(n), (torch.zeros(n // 4), "00"))[1])
    memory = shared_memory.SharedTensors({"one": (3,), "other": (600_000,)}, torch.device("cuda:0"))
    assert asked == [2 * 2**21] and memory.description["bytes"] == 2 * 2**21
    shared_memory.SharedTensors({"one": (3,)}, torch.device("cuda:0"))
    assert asked[1] == 2**21


def test_every_environment_broken_for_many_steps_ends_the_run(build) -> None:
    engine = build(TOSS, 1, chaos="nan=always@0")
    for _ in range(10):
        engine.step(still(engine))
    with pytest.raises(SimulationError, match="all 1 environments"):
        engine.stats()


def test_state_goes_on_where_it_was(toss, build) -> None:
    first, second = toss, build()
    for k in range(5):
        first.set_dof_target(torch.full((3, 1), 0.01 * k))
        first.step(still(first))
    second.load_state_dict(first.state_dict())
    for name in ("root_state", "body_state", "dof_pos", "force_sensor"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    for engine in (first, second):
        engine.step(still(engine))
    assert torch.allclose(first.root_state, second.root_state, atol=1e-4)
    assert torch.allclose(first.dof_pos, second.dof_pos, atol=1e-3)
    with pytest.raises(ValueError, match="this scene"):
        second.load_state_dict({**first.state_dict(), "dof": torch.zeros(3, 2, 2)})


class TestWhatGoesWrong:
    def test_a_crash_is_reported_with_its_last_messages(self, build) -> None:
        engine = build(chaos="die=2")
        assert not list(Path(tempfile.gettempdir()).glob("dima_isaacgym_*"))  # what is killed leaves nothing behind
        engine.step(still(engine))
        with pytest.raises(WorkerError, match=r"SIGSEGV.*out of luck"):
            engine.step(still(engine))

    def test_a_worker_that_does_not_answer_is_an_error(self, build, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = build(chaos="hang=1")
        monkeypatch.setattr("dima_isaac.sim.isaacgym.engine.STEP_TIMEOUT", 0.5)
        with pytest.raises(WorkerError, match=r"did not answer within 0\.5 s"):
            engine.step(still(engine))

    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
    def test_a_signal_that_stops_the_run_leaves_physics_to_its_last_steps(self, build, name: str) -> None:
        """Terminals and schedulers send it to every process of the run."""
        engine = build()
        os.kill(engine._worker._process.pid, getattr(signal, name))
        for _ in range(2):
            engine.step(still(engine))
        assert torch.isfinite(engine.root_state).all()

    def test_full_buffers_are_counted(self, build) -> None:
        engine = build(chaos="overflow=2")
        counts = []
        for _ in range(3):
            engine.step(still(engine))
            counts.append(int(engine.stats()["contact_overflow"]))
        assert counts == [0, 2, 2]  # of pairs, and of contacts

    def test_a_refused_simulation(self, build) -> None:
        with pytest.raises(WorkerError, match="create_sim failed"):
            build(chaos="refuse=1")

    @pytest.mark.parametrize(
        ("call", "of"),
        [
            ("load_asset", r"\(rig.xml\) failed for rig"),
            ("set_asset_tendon_properties", "failed for rig"),
            ("create_asset_force_sensor", "failed for rig/arm"),
            ("begin_aggregate", "failed for environment 0"),
            ("create_actor", "failed for rig"),
            ("set_actor_rigid_shape_properties", "failed for rig"),
            ("set_actor_dof_properties", "failed for rig"),
            ("enable_actor_dof_force_sensors", "failed for rig"),
            ("end_aggregate", "failed for environment 0"),
            ("prepare_sim", "failed; its own messages"),
            ("refresh_dof_force_tensor", "failed; its own messages"),
            ("set_actor_root_state_tensor_indexed", "failed; its own messages"),
        ],
    )
    def test_a_call_that_fails_is_named_with_its_actor(self, build, call: str, of: str) -> None:
        with pytest.raises(WorkerError, match=f"Isaac Gym's {call}.*{of}" if "(" not in of else f"{call}{of}"):
            build(RIG, 1, chaos=f"fail={call}")

    def test_a_tendon_that_the_importer_lost(self, build) -> None:
        with pytest.raises(WorkerError, match="importer lost coupling of rig"):
            build(RIG, 1, chaos="lose=tendon")

    def test_an_object_whose_root_the_importer_fixed(self, build) -> None:
        with pytest.raises(SimulationError, match=r"does not let 'ball' fall: dropped, it has 0 m/s .* not -0\.16"):
            build(chaos="fixes=1")

    def test_a_gpu_in_exclusive_process_mode(self, build) -> None:
        with pytest.raises(WorkerError, match=r"exclusive-process mode.*nvidia-smi -c DEFAULT"):
            build(chaos="exclusive=1", device="cuda:0", pipeline=Pipeline.cpu)

    def test_where_cuda_ipc_is_forbidden(self, build, gpu_worker) -> None:
        with pytest.raises(WorkerError, match=r"engine.pipeline=cpu does without"):
            build(chaos="noipc=1")

    def test_an_interpreter_without_isaacgym(self, build) -> None:
        with pytest.raises(WorkerError, match="No module named 'isaacgym'"):
            build(python=sys.executable)

    def test_no_interpreter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        with pytest.raises(UsageError, match=f"needs {VARIABLE}"):
            make("ShadowHandOver", num_envs=1, engine="isaacgym", device="cpu")
        cfg = IsaacGymConfig(python="/nowhere/python3.8")
        with pytest.raises(UsageError, match=r"engine.python=/nowhere/python3.8 is not a program"):
            IsaacGymEngine(TOSS, 1, cfg, torch.device("cpu"))
        monkeypatch.setenv(VARIABLE, "/nowhere/python3.8")
        with pytest.raises(UsageError, match=f"{VARIABLE}=/nowhere/python3.8 is not a program"):
            make("ShadowHandOver", num_envs=1, engine="isaacgym", device="cpu")

    def test_the_interpreter_may_be_a_setting(self, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        catalog = Catalog()
        engine = {**catalog.values("engine", "isaacgym"), "python": program}
        cfg = RunConfig(task=catalog.values("task", "ShadowHandOver"), engine=engine, sim_device="cpu", rl_device="cpu")
        assert resolve_run(cfg, catalog)[0].engine["python"] == program

    def test_scenes_that_only_mujoco_has(self, build) -> None:
        with pytest.raises(UsageError, match="use engine=mujoco"):
            build(Scene(world="half_cheetah.xml", frame_skip=5))
        with pytest.raises(UsageError, match="does not randomise"):
            build(Scene(actors=[Actor("box", Mjcf(xml=BOX), variation=Variation(mass=(0.5, 1.5)))]))


@pytest.mark.parametrize("task", ["ShadowHandOver", "ShadowHandDoorOpenInward", "ShadowHandKettle"])
def test_tasks_run(python: str, task: str) -> None:
    """Fixed and free hands, hinges and many actors: the first row is MuJoCo's, and ten steps stay finite."""
    mine = make(task, num_envs=2, engine="isaacgym", device="cpu", seed=3)
    theirs = make(task, num_envs=2, engine="mujoco", device="cpu", seed=3)
    a, b = mine.reset(), theirs.reset()
    roots = mine.engine.root_state[..., :7] - theirs.engine.root_state[..., :7]
    assert roots.abs().max() < 1e-4 and torch.allclose(mine.engine.dof_pos, theirs.engine.dof_pos, atol=1e-5)
    assert a.first.all() and a.state.shape == b.state.shape
    # what is seen of joints agrees to the bit; links have moved for one step in which nothing was to move them
    assert (a.state - b.state).abs().median() < 1e-3
    action = torch.zeros(2, mine.spec.dims.agents, mine.spec.dims.action)
    for _ in range(10):
        a = mine.step(action)
    assert torch.isfinite(a.state).all() and not a.last.any()
    picture = mine.engine.render(0, 64, 48)
    assert picture.shape == (48, 64, 3) and picture.std() > 1
    mine.close()
    theirs.close()


@pytest.mark.isaacgym
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not os.environ.get(VARIABLE), reason=f"{VARIABLE} names no interpreter with isaacgym")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def test_the_real_one(device: str) -> None:
    """The conventions that the stand-in implements, measured on Isaac Gym itself."""
    flight = IsaacGymEngine(FLIGHT, 1, IsaacGymConfig(substeps=1), torch.device(device))
    check_conventions(flight)
    flight.close()
    env = make("ShadowHandOver", num_envs=4, engine="isaacgym", device=device, seed=0)
    env.reset()
    for _ in range(80):
        step = env.step(torch.zeros(4, 2, 20, device=device))
    assert torch.isfinite(step.state).all() and int(env.engine.stats()["nonfinite"]) == 0
    env.close()


def test_the_worker_is_python_3_8() -> None:
    """Its file parses there and imports nothing of this package."""
    tree = ast.parse(WORKER.read_text(), feature_version=(3, 8))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    names = {alias.name.split(".")[0] for node in imports for alias in node.names}
    names |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    standard = {"__future__", "contextlib", "ctypes", "json", "mmap", "multiprocessing", "os", "signal", "sys"}
    standard |= {"traceback", "typing"}
    assert names <= standard | {"isaacgym"}  # neither torch nor gymtorch
    old = shutil.which("python3.8")
    if old and subprocess.run([old, "--version"], capture_output=True, check=False).returncode == 0:
        subprocess.run([old, "-c", f"compile(open({str(WORKER)!r}).read(), 'worker', 'exec')"], check=True)
