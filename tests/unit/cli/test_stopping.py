"""A signal stops a command wherever it comes, also while Python drops what is raised."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comfypin.cli.stopping import heeding_signals

BEGIN = """
import logging, os, signal, time
from comfypin.cli.stopping import Stopped, heeding_signals

def tell():
    os.kill(os.getpid(), signal.SIGTERM)

"""
IN_A_DESTRUCTOR = """
class Thing:
    def __del__(self):
        tell()

def work():
    thing = Thing()
    del thing
"""
BEFORE_A_FORK = """
def work():
    os.register_at_fork(before=tell)
    if os.fork() == 0:
        os._exit(0)
    os.wait()
"""
AFTER_A_FORK = """
os.register_at_fork(after_in_parent=tell)

def work():
    if os.fork() == 0:
        os._exit(0)
    os.wait()
"""
END = """
try:
    with heeding_signals():
        work()
        time.sleep(5)
        print("was not stopped")
except Stopped as stopped:
    free = logging._lock.acquire(timeout=1)
    print("stopped by", stopped.name, "and logging works" if free else "")
"""


@pytest.mark.parametrize("work", [IN_A_DESTRUCTOR, BEFORE_A_FORK, AFTER_A_FORK], ids=["destructor", "before", "after"])
def test_no_stop_is_lost(work: str) -> None:
    # Python 3.12 and later warn of a fork beside a thread, which is what this is about.
    quiet = ("-W", "ignore:This process:DeprecationWarning")
    ended = subprocess.run(
        [sys.executable, *quiet, "-c", BEGIN + work + END], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.stdout, ended.stderr) == ("stopped by SIGTERM and logging works\n", "")


IN_A_CHILD = """
import os, signal, time
from comfypin.cli.stopping import heeding_signals

with heeding_signals():
    if (child := os.fork()) == 0:
        time.sleep(60)
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends children")
def test_a_child_that_nobody_noted_ends_with_us() -> None:
    ended = subprocess.run([sys.executable, "-c", IN_A_CHILD], capture_output=True, text=True, timeout=60, check=False)
    child = Path(f"/proc/{ended.stdout.strip()}/stat")
    for _ in range(1000):
        if not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)
    os.kill(int(ended.stdout), signal.SIGKILL)
    pytest.fail("it is still there")


def test_other_lost_exceptions_are_reported_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []

    class Thing:
        def __del__(self) -> None:
            raise ValueError("lost")

    monkeypatch.setattr(sys, "unraisablehook", lambda lost: reported.append(str(lost.exc_value)))
    with heeding_signals():
        Thing()
    assert reported == ["lost"]
