"""A signal stops a command wherever it comes, also while Python drops what is raised."""

import subprocess
import sys

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
    ended = subprocess.run(
        [sys.executable, "-c", BEGIN + work + END], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.stdout, ended.stderr) == ("stopped by SIGTERM and logging works\n", "")


def test_other_lost_exceptions_are_reported_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []

    class Thing:
        def __del__(self) -> None:
            raise ValueError("lost")

    monkeypatch.setattr(sys, "unraisablehook", lambda lost: reported.append(str(lost.exc_value)))
    with heeding_signals():
        Thing()
    assert reported == ["lost"]
