"""A signal sets a flag and nothing else; the second Ctrl-C is obeyed at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dima_isaac.run.signals import Signals

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGHUP", 75), ("SIGINT", 130)])
def test_flag_and_exit_code(name, code):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with Signals() as signals:
        assert signals.stop is None and signals.exit_code == 0
        os.kill(os.getpid(), number)
        assert signals.stop == name and signals.exit_code == code
    assert signal.getsignal(number) is before


def test_the_first_signal_decides():
    with Signals() as signals:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert signals.stop == "SIGTERM"


TWICE = """
import os, signal, sys
from dima_isaac.run.signals import Signals
with Signals():
    os.kill(os.getpid(), signal.Signals[sys.argv[1]])
    print("saving", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("never", flush=True)
"""


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupt_is_answered_at_once_and_the_next_exits(first):
    done = subprocess.run([sys.executable, "-c", TWICE, first], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and done.stdout == "saving\n"
    assert done.stderr == f"\n{first}: saving after this step; Ctrl-C leaves unsaved.\n"


def test_under_nohup_a_hangup_does_not_stop_the_run():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.stop is None
    finally:
        signal.signal(signal.SIGHUP, before)
