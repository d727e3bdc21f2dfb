"""Two processes never write to one folder, and the lock of a dead one is released."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dima_isaac.errors import UsageError
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.plan import plan
from tests.run.test_folder import ROOT, run_config


def test_a_second_process_is_refused_and_a_dead_one_is_not():
    code = "import sys, time; from pathlib import Path; from dima_isaac.run.folder import RunFolder\n"
    code += "run = RunFolder(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, "shared"]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert other.stdout.readline() == "held\n"
        for attempt in (lambda: plan(run_config(run_dir="shared")), lambda: RunFolder(Path("shared"))):
            with pytest.raises(UsageError, match=f"in use by process {other.pid} on {socket.gethostname()}"):
                attempt()
    finally:
        other.kill()
        other.communicate()
    with RunFolder(Path("shared")):  # the lock died with its process
        pass


def test_where_files_cannot_be_locked_no_process_is_refused(monkeypatch):
    def flock(*words):
        raise OSError(errno.ENOLCK, "no locks on this file system")

    monkeypatch.setattr(fcntl, "flock", flock)
    Path("shared").mkdir()
    Path("shared/lock").write_text("process 1 on elsewhere")  # killed there, and to be continued here
    RunFolder(Path("shared")).close()
