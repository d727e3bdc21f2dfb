"""Checkpoints rotate, fall back to an intact one, and cost only the rows that are new."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dima_isaac.config import RunConfig
from dima_isaac.errors import CheckpointError
from dima_isaac.replay.config import ReplayConfig
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.run.checkpoint import Checkpoints, read, read_newest, steps_in
from dima_isaac.run.folder import find
from dima_isaac.run.sealed import load, save, verify
from dima_isaac.types import Dims, Step

ROOT = Path(__file__).resolve().parents[2]


def run_config(checkpoint: str = "auto", keep: int = 2, task: str = "Toy") -> RunConfig:
    cfg = RunConfig(task={"name": task}, checkpoint=checkpoint)
    cfg.train.checkpoint.keep = keep
    return cfg


def checkpoints(folder: Path, **kw) -> Checkpoints:
    return Checkpoints(folder, run_config(**kw), note=lambda text: None)


def test_rotation_keeps_the_newest_and_last_is_the_newest(tmp_path):
    store = checkpoints(tmp_path, keep=2)
    for n in (10, 20, 30):
        assert store.save(n, {"n": n})
    assert [path.name for path in steps_in(store.folder)] == ["step_20.pt", "step_30.pt"]
    assert load(tmp_path / "last.pt")["n"] == 30 and store.restore()["n"] == 30
    assert not list(tmp_path.glob(".*"))


def test_last_is_the_newest_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def link(*paths):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", link)
    store = checkpoints(tmp_path)
    assert store.save(10, {"n": 10}) and store.save(20, {"n": 20})
    assert load(tmp_path / "last.pt")["n"] == 20 and not list(tmp_path.glob(".*"))


def test_auto_falls_back_to_the_one_before_and_says_so(tmp_path):
    store = checkpoints(tmp_path)
    store.save(10, {"n": 10})
    store.save(20, {"n": 20})
    newest = tmp_path / "step_20.pt"
    newest.write_bytes(newest.read_bytes()[:-40])
    said = []
    again = Checkpoints(tmp_path, run_config(), said.append)
    assert again.restore()["n"] == 10
    assert "step_20.pt is truncated" in said[0] and "step_10.pt continued from" in said[0]
    again.save(15, {"n": 15})
    assert checkpoints(tmp_path).restore()["n"] == 15  # the damaged one no longer stands in the way


def test_a_last_checkpoint_that_was_copied_alone_is_continued(tmp_path):
    checkpoints(tmp_path).save(10, {"n": 10})
    (tmp_path / "step_10.pt").unlink()
    again = checkpoints(tmp_path)
    assert again.restore()["n"] == 10 and again.save(20, {"n": 20})
    assert checkpoints(tmp_path).restore()["n"] == 20


def test_without_an_intact_one_it_refuses_every_time(tmp_path):
    checkpoints(tmp_path).save(10, {"n": 10})
    path = tmp_path / "step_10.pt"
    path.write_bytes(path.read_bytes()[:-40])
    for _ in range(2):  # the second try must not begin anew over what may yet be mended
        with pytest.raises(CheckpointError, match=r"step_10\.pt is truncated.* another run_dir begins a new run"):
            checkpoints(tmp_path).restore()
    assert path.exists()


@pytest.mark.parametrize("name", ["step_8.pt", "replay_4_8.pt"])
def test_what_cannot_be_read_now_is_neither_passed_over_nor_changed(tmp_path, name):
    replay, store, step = buffer(), checkpoints(tmp_path), {"first": torch.zeros(3, dtype=torch.bool)}
    for start in (0, 4):
        write(replay, range(start, start + 4))
        store.save(start + 4, {"replay": replay.state_dict(), "step": step})
    there = tmp_path / name
    there.rename(tmp_path / "elsewhere")
    there.mkdir()  # reading it is an OSError, as where a disk does not answer
    files = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=rf"cannot read .*{name}: Is a directory. Try again") as caught:
        checkpoints(tmp_path).restore()
    assert sorted(tmp_path.iterdir()) == files and "remove" not in str(caught.value)
    there.rmdir()
    (tmp_path / "elsewhere").rename(there)
    assert checkpoints(tmp_path).restore()["replay"]["size"] == 8


def test_a_damaged_older_one_does_not_stop_a_save(tmp_path):
    store = checkpoints(tmp_path, keep=3)
    store.save(10, {"n": 10})
    store.save(20, {"n": 20})
    older = tmp_path / "step_10.pt"
    older.write_bytes(older.read_bytes()[:-40])
    again = checkpoints(tmp_path, keep=3)
    assert again.restore()["n"] == 20 and again.save(30, {"n": 30})
    assert [path.name for path in steps_in(again.folder)] == ["step_20.pt", "step_30.pt"]


def test_an_older_one_that_cannot_be_read_now_is_left_alone(tmp_path):
    said = []
    store = Checkpoints(tmp_path, run_config(), said.append)
    (tmp_path / "step_10.pt").mkdir()  # reading it is an OSError, as where a disk does not answer
    assert store.save(20, {"n": 20}) and (tmp_path / "step_10.pt").exists() and not said


def test_read_newest_takes_the_newest_intact_one_and_reports_it(tmp_path, capsys):
    store = checkpoints(tmp_path, keep=3)
    for n in (10, 20, 30):
        store.save(n, {"n": n})
    last = tmp_path / "last.pt"
    assert read_newest(last)[0] == last and not capsys.readouterr().out
    for path in (tmp_path / "step_20.pt", last):  # last.pt is step_30.pt by another name
        with path.open("r+b") as file:
            file.truncate(100)
    path, state = read_newest(last)
    said = capsys.readouterr().out
    assert path.name == "step_10.pt" and state["n"] == 10 and said.endswith("last.pt is truncated, altered or not a"
        " checkpoint of this program. Taking step_10.pt.\n")  # fmt: skip
    with pytest.raises(CheckpointError, match=r"step_30\.pt is truncated"):  # it was named
        read_newest(tmp_path / "step_30.pt")
    path.unlink()
    with pytest.raises(CheckpointError, match=r"last\.pt is truncated"):
        read_newest(last)


def test_named_checkpoints_are_refused_with_exit_code_3(tmp_path):
    store = checkpoints(tmp_path / "a")
    store.save(10, {"n": 10})
    path = tmp_path / "a" / "step_10.pt"
    assert checkpoints(tmp_path / "b", checkpoint=str(path)).restore()["n"] == 10
    with pytest.raises(CheckpointError, match="task Toy, not Ant") as caught:
        checkpoints(tmp_path / "b", checkpoint=str(path), task="Ant").restore()
    assert caught.value.exit_code == 3
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoints(tmp_path / "b", checkpoint=str(tmp_path / "none.pt")).restore()


def test_nothing_to_restore(tmp_path):
    assert checkpoints(tmp_path).restore() is None
    assert checkpoints(tmp_path, checkpoint="").restore() is None


def test_find_accepts_a_run_folder(tmp_path):
    checkpoints(tmp_path / "checkpoints").save(5, {})
    assert find(str(tmp_path)) == find(str(tmp_path / "checkpoints")) == tmp_path / "checkpoints" / "last.pt"
    assert read(find(str(tmp_path)))["config"]["task"]["name"] == "Toy"


def buffer(capacity: int = 24, envs: int = 3) -> ReplayBuffer:
    dims = Dims(agents=2, state=4, obs=4, action=1)
    return ReplayBuffer(ReplayConfig(capacity=capacity), dims, envs, torch.device("cpu"))


def write(replay: ReplayBuffer, numbers: range) -> None:
    """Rows that know their number: state = 100 * number + environment."""
    envs = replay.num_envs
    for n in numbers:
        state = (100.0 * n + torch.arange(envs)).unsqueeze(1).expand(envs, 4)
        no = torch.zeros(envs, dtype=torch.bool)
        step = Step(state, torch.zeros(envs, 2, 4), torch.full((envs,), float(n)), no, no, no)
        replay.add(step, torch.full((envs, 2, 1), float(n)))


@pytest.mark.parametrize("stops", [[3], [3, 5], [3, 8, 9], [5, 8, 13, 30], [20, 21, 22, 31]])
def test_replay_rows_survive_in_segments(tmp_path, stops):
    """Whatever the saves' spacing against the ring's 8 rows: what comes back is what was there."""
    replay, store, at = buffer(), checkpoints(tmp_path), 0
    for stop in stops:
        write(replay, range(at, stop))
        at = stop
        store.save(stop, {"replay": replay.state_dict()})
    restored = checkpoints(tmp_path).restore()
    other = buffer()
    other.load_state_dict(restored["replay"])
    for column in ("state", "action", "reward", "first", "last", "terminal"):
        assert torch.equal(getattr(other, column)[: other.size], getattr(replay, column)[: replay.size])
    age, env = torch.arange(3), torch.tensor([0, 1, 2])
    assert torch.equal(other.gather(age, env, 2).state, replay.gather(age, env, 2).state)


def test_a_save_writes_only_new_rows_and_deletes_old_ones(tmp_path):
    replay, store = buffer(), checkpoints(tmp_path, keep=1)
    for start in range(0, 40, 4):
        write(replay, range(start, start + 4))
        store.save(start + 4, {"replay": replay.state_dict()})
    names = sorted(path.name for path in tmp_path.glob("replay_*.pt"))
    assert names == ["replay_32_36.pt", "replay_36_40.pt"]  # the ring's 8 rows, four of them per save
    assert load(tmp_path / "replay_36_40.pt")["reward"].shape == (4, 3)


def test_continuing_after_a_restore_shares_the_old_segments(tmp_path):
    replay, store = buffer(), checkpoints(tmp_path)
    write(replay, range(4))
    store.save(4, {"replay": replay.state_dict()})
    stamp = (tmp_path / "replay_0_4.pt").stat().st_mtime_ns
    second = checkpoints(tmp_path)
    other = buffer()
    other.load_state_dict(second.restore()["replay"])
    write(other, range(4, 6))
    second.save(6, {"replay": other.state_dict()})
    assert (tmp_path / "replay_0_4.pt").stat().st_mtime_ns == stamp and (tmp_path / "replay_4_6.pt").exists()


def test_rows_whose_file_is_damaged_exchanged_or_not_listed_are_lost_and_nothing_else(tmp_path):
    """Rows 4 to 7 of 12 go: the others move together, and the row after the gap joins nothing before it."""
    replay, store = buffer(capacity=60), checkpoints(tmp_path)
    for start in (0, 4, 8):
        write(replay, range(start, start + 4))
        store.save(start + 4, {"n": start, "replay": replay.state_dict()})
    whole, unlisted = (tmp_path / "replay_4_8.pt").read_bytes(), load(tmp_path / "step_12.pt")
    del unlisted["replay"]["segments"][1]

    def flip():
        (tmp_path / "replay_4_8.pt").write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])

    def exchange():  # intact, but not ours
        save(tmp_path / "replay_4_8.pt", {"state": torch.zeros(4, 3, 4)})

    for harm in (flip, exchange, (tmp_path / "replay_4_8.pt").unlink, lambda: save(tmp_path / "step_12.pt", unlisted)):
        (tmp_path / "replay_4_8.pt").write_bytes(whole)
        harm()
        said = []
        again = Checkpoints(tmp_path, run_config(), said.append)
        other, state = buffer(capacity=60), again.restore()
        other.load_state_dict(state["replay"])
        assert state["n"] == 8 and other.size == 8 and "4 of 12 rows of the replay are lost" in said[-1]
        numbers = other.gather(torch.arange(8).flip(0), torch.zeros(8, dtype=torch.long), 1).reward[:, 0]
        assert numbers.tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
        window = other.gather(torch.tensor([2]), torch.tensor([0]), 4)  # rows 2, 3, 8, 9
        assert window.valid.tolist() == [[False, False, True, True]]
    write(other, range(12, 14))
    assert again.save(14, {"replay": other.state_dict()})  # whole again, in a file of its own
    other = buffer(capacity=60)
    other.load_state_dict(Checkpoints(tmp_path, run_config(), said.append).restore()["replay"])
    assert other.size == 10 and len(said) == 1
    assert other.gather(torch.tensor([0]), torch.tensor([2]), 1).state[0, 0, 0] == 1302


def test_without_its_newest_rows_the_replay_begins_an_episode(tmp_path):
    """What comes next in the environments leads from no row that is left."""
    replay, store = buffer(), checkpoints(tmp_path)
    no = {"first": torch.zeros(3, dtype=torch.bool)}
    for start in (0, 4):
        write(replay, range(start, start + 4))
        store.save(start + 4, {"replay": replay.state_dict(), "step": no})
    assert not store.restore()["step"]["first"].any()
    (tmp_path / "replay_4_8.pt").unlink()
    state = store.restore()
    assert state["replay"]["size"] == 4 and state["step"]["first"].all()
    (tmp_path / "replay_0_4.pt").unlink()
    replay.load_state_dict(store.restore()["replay"])
    assert replay.size == 0
    write(replay, range(8, 9))
    assert replay.size == 1 and not replay.transitions(5, 2, 0.9).counted.any()


def test_a_checkpoint_cannot_name_files_elsewhere(tmp_path):
    store = checkpoints(tmp_path / "run")
    save(tmp_path / "secret.pt", {"a": torch.zeros(1)})
    segment = {"file": "../secret.pt", "start": 0, "stop": 1, "sha256": verify(tmp_path / "secret.pt")}
    replay = {"rows": 8, "size": 1, "added": 1, "segments": [segment]}
    save(tmp_path / "run" / "step_1.pt", {"format": 1, "config": {"task": {"name": "Toy"}}, "replay": replay})
    with pytest.raises(CheckpointError, match=r"calls '\.\./secret\.pt' replay rows"):
        store.restore()


def test_stale_temporary_files_are_swept(tmp_path):
    (tmp_path / ".step_5.pt.123.tmp").write_bytes(b"half a file")
    checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("saved", "told"), [(True, "the one before it is intact"), (False, "there is none before it")])
def test_a_full_disk_keeps_the_old_checkpoint(saved, told, tmp_path):
    said = []
    store = Checkpoints(tmp_path, run_config(), said.append)
    if saved:
        store.save(1, {"n": 1})
    replay = buffer()
    write(replay, range(4))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        assert not store.save(2, {"big": torch.zeros(100_000), "replay": replay.state_dict()})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(said) == 1 and "not saved" in said[0] and told in said[0]
    kept = store.restore()
    assert (kept["n"] == 1 if saved else kept is None) and not list(tmp_path.glob(".*"))
    assert not list(tmp_path.glob("replay_*"))  # written whole, but of no use and in the way
    assert store.save(3, {"n": 3}) and store.restore()["n"] == 3


def test_a_deleted_folder_is_made_again_with_every_row(tmp_path):
    folder, replay, said = tmp_path / "checkpoints", buffer(), []
    store = Checkpoints(folder, run_config(), said.append)
    write(replay, range(4))
    assert store.save(4, {"replay": replay.state_dict()})
    shutil.rmtree(folder)
    write(replay, range(4, 6))
    assert store.save(6, {"replay": replay.state_dict()})
    again = buffer()
    again.load_state_dict(checkpoints(folder).restore()["replay"])
    assert again.size == 6 and not said


def test_without_free_file_handles_nothing_is_saved_and_nothing_lost(tmp_path):
    said = []
    store = Checkpoints(tmp_path, run_config(), said.append)
    assert store.save(1, {"n": 1})
    before, files = resource.getrlimit(resource.RLIMIT_NOFILE), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                files.append(open(os.devnull))  # noqa: SIM115
        assert not store.save(2, {"n": 2})
    finally:
        for file in files:
            file.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert said == ["checkpoint not saved: Too many open files; the one before it is intact."]
    assert store.restore()["n"] == 1 and store.save(2, {"n": 2})


KILLED = """
import sys, torch
from pathlib import Path
from tests.run.test_checkpoint import checkpoints
store = checkpoints(Path(sys.argv[1]))
n = 0
while True:
    n += 1
    store.save(n, {"n": n, "x": torch.full((300_000,), float(n))})
    print(n, flush=True)
"""


@pytest.mark.slow
def test_a_kill_during_saving_never_tears_a_checkpoint(tmp_path):
    for round_ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        saved = 0
        for _ in range(3 + 4 * round_):
            saved = int(process.stdout.readline())
        process.kill()
        process.communicate()
        state = checkpoints(tmp_path).restore()
        assert state["n"] >= saved and bool((state["x"] == state["n"]).all())
        assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.damaged"))
