"""A door that runs in the background, watched through its JSON events, and the engine that it started."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.door import ROOT, clean_environ, door_command


class RunningDoor:
    """`python -m rp_handler.main ... --json` under way."""

    def __init__(self, *words: object) -> None:
        self.process = subprocess.Popen(
            door_command(*words, "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=clean_environ(),
            start_new_session=True,
        )
        self.events: list[dict[str, Any]] = []
        self.engine_pids: set[int] = set()

    def wait_for(self, name: str) -> dict[str, Any]:
        """Read events until one of this name; those of the engine's processes are noted on the way."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with contextlib.suppress(ValueError):
                self.events.append(json.loads(line))
                self.engine_pids |= set(descendants(self.process.pid))
                if self.events[-1].get("event") == name:
                    return self.events[-1]
        said = self.process.communicate(timeout=10)[0].decode()
        raise AssertionError(f"no event {name!r}; heard {self.events}, and then {said}")

    def signal(self, number: signal.Signals) -> None:
        """Send the door a signal."""
        self.process.send_signal(number)

    def end(self, timeout_s: float = 60) -> tuple[int, dict[str, Any], str]:
        """Wait for the end: exit code, what stdout holds as JSON, and the rest of stderr."""
        stdout, stderr = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, json.loads(stdout) if stdout.strip() else {}, stderr.decode()

    def engine(self) -> int:
        """The pid of the engine itself: the deepest of our descendants."""
        return descendants(self.process.pid)[-1]


@contextlib.contextmanager
def running_door(*words: object) -> Iterator[RunningDoor]:
    """A door that is killed, with its session, when the block ends."""
    door = RunningDoor(*words)
    try:
        yield door
    finally:
        if door.process.poll() is None:
            door.process.kill()
        door.process.communicate()


def descendants(pid: int) -> list[int]:
    """The processes that descend from one, parents first."""
    found: list[int] = []
    unseen = [pid]
    while unseen:
        parent = unseen.pop(0)
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                children = [int(child) for child in (task / "children").read_text().split()]
                found += children
                unseen += children
    return found


def wait_until_gone(pids: set[int], timeout_s: float = 15) -> set[int]:
    """Wait for the processes to end; those that did not."""
    give_up_at = time.monotonic() + timeout_s
    while (left := {pid for pid in pids if _is_alive(pid)}) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    return left


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False
