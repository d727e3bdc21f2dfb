"""Files are whole or refused, and never run code."""

import os
import pickle

import pytest
import torch

from dima_isaac.errors import CheckpointError
from dima_isaac.run.atomic import write_atomic
from dima_isaac.run.sealed import load, save, verify

PAYLOAD = {"a": torch.arange(6.0), "deep": {"list": [1, "two", None], "flag": True, "x": 0.5}}


def test_roundtrip_and_plain_torch_can_read_it(tmp_path):
    save(tmp_path / "x.pt", PAYLOAD)
    for state in (load(tmp_path / "x.pt"), torch.load(tmp_path / "x.pt", weights_only=True)):
        assert torch.equal(state["a"], PAYLOAD["a"]) and state["deep"] == PAYLOAD["deep"]


@pytest.mark.parametrize("write", [lambda path: save(path, PAYLOAD), lambda path: write_atomic(path, "text")])
def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch, write):
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, call=call: (done.append(name), call(*a)))
    write(tmp_path / "x")
    assert done == ["fsync", "replace", "fsync"]  # the file, its name, the folder that holds the name


def test_every_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "x.pt"
    save(path, {"a": torch.arange(4.0)})
    good = path.read_bytes()
    for i in range(0, len(good), 7):
        path.write_bytes(good[:i] + bytes([good[i] ^ 0x40]) + good[i + 1 :])
        with pytest.raises(CheckpointError):
            load(path)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "x.pt"
    save(path, PAYLOAD)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(CheckpointError, match="truncated"):
        verify(path)


def test_code_in_a_file_does_not_run(tmp_path):
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    save(tmp_path / "evil.pt", {"a": Evil()})  # sealed with a correct digest: the loader itself must refuse
    with pytest.raises(CheckpointError, match="safely"):
        load(tmp_path / "evil.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError):
        load(tmp_path / "raw.pt")
    assert not canary.exists()
