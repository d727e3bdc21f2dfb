"""A signal sets a flag and nothing else; the second Ctrl-C is obeyed at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dima_isaac.run.signals import Signals

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", 130)])
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
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.stop == "SIGTERM"


TWICE = """
import os, signal
from dima_isaac.run.signals import Signals
with Signals():
    os.kill(os.getpid(), signal.SIGINT)
    print("saving", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("never", flush=True)
"""


def test_a_second_interrupt_exits_at_once():
    done = subprocess.run([sys.executable, "-c", TWICE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and done.stdout == "saving\n"
