"""Leases: one holder at a time, whoever dies, however late somebody decides."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from comfypin.lease import (
    Holder,
    Lease,
    LeaseHeld,
    LeaseLost,
    LeaseUnavailable,
    LeaseWatch,
    acquire_lease,
    is_dead,
    lease_holder,
    process_token,
    try_acquire_lease,
)

ELSEWHERE = "0123456789ab-1-2-elsewhere"


def held_elsewhere(path: Path, *, age_s: float = 0) -> Path:
    """A lease that a process of another machine holds."""
    path.mkdir(parents=True)
    token = path / ELSEWHERE
    token.write_text(json.dumps({"hostname": "pod-7", "pid": 1, "purpose": "pull models"}))
    os.utime(token, (time.time() - age_s, time.time() - age_s))
    return token


def test_a_free_lease_is_taken_and_given_back(tmp_path: Path) -> None:
    with acquire_lease(tmp_path / "a.lease") as lease:
        assert lease.held
    assert list(tmp_path.iterdir()) == []


def test_a_second_taker_is_told_who_holds_it(tmp_path: Path) -> None:
    with acquire_lease(tmp_path / "a", purpose="pull models"):
        other = try_acquire_lease(tmp_path / "a")
    assert isinstance(other, Holder)
    assert (other.pid, other.purpose) == (os.getpid(), "pull models")


def test_waiting_ends_with_the_holders_name(tmp_path: Path) -> None:
    held_elsewhere(tmp_path / "a")
    with pytest.raises(LeaseHeld, match="process 1 on pod-7 to pull models"):
        acquire_lease(tmp_path / "a", wait_s=0)


def test_a_waiter_gets_it_when_the_holder_is_done(tmp_path: Path) -> None:
    first = acquire_lease(tmp_path / "a")
    threading.Timer(0.1, first.release).start()
    with acquire_lease(tmp_path / "a", wait_s=20) as second:
        assert second.held


def test_a_holder_whose_heart_stopped_is_replaced_after_the_ttl(tmp_path: Path) -> None:
    held_elsewhere(tmp_path / "a")
    with acquire_lease(tmp_path / "a", ttl_s=0.3, wait_s=20) as lease:
        assert lease_holder(tmp_path / "a") == lease.holder


def test_a_heart_that_beats_keeps_the_lease(tmp_path: Path) -> None:
    now = 0.0
    token = held_elsewhere(tmp_path / "a")
    watch = LeaseWatch(path=tmp_path / "a", ttl_s=60, clock=lambda: now)
    for beat in range(5):
        os.utime(token, ns=(time.time_ns(), time.time_ns() + beat))
        assert watch.find_dead_token() is None
        now += 59
    now += 2
    assert watch.find_dead_token() == ELSEWHERE


def test_a_holder_of_yesterday_is_replaced_without_waiting(tmp_path: Path) -> None:
    held_elsewhere(tmp_path / "a", age_s=86_400)
    taken = try_acquire_lease(tmp_path / "a")
    assert isinstance(taken, Lease)
    taken.release()


def test_a_process_that_was_killed_on_this_machine_is_replaced_at_once(tmp_path: Path) -> None:
    code = (
        "from comfypin.lease import acquire_lease; from pathlib import Path; import sys;"
        "lease = acquire_lease(Path(sys.argv[1])); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert isinstance(try_acquire_lease(tmp_path / "a"), Holder)
        child.kill()
        child.wait()
    taken = try_acquire_lease(tmp_path / "a")
    assert isinstance(taken, Lease)
    taken.release()


def test_a_late_decision_cannot_throw_out_a_new_holder(tmp_path: Path) -> None:
    held_elsewhere(tmp_path / "a", age_s=86_400)
    late = LeaseWatch(path=tmp_path / "a").find_dead_token()
    assert late == ELSEWHERE
    with acquire_lease(tmp_path / "a") as new:
        with pytest.raises(FileNotFoundError):
            (tmp_path / "a" / late).unlink()
        assert new.held


def test_a_holder_that_was_replaced_learns_it(tmp_path: Path) -> None:
    lease = acquire_lease(tmp_path / "a", ttl_s=0.3)
    (tmp_path / "a" / lease.holder.token).unlink()
    with acquire_lease(tmp_path / "a") as new:
        deadline = time.monotonic() + 20
        while lease.held and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(LeaseLost):
            lease.check()
        lease.release()
        assert lease_holder(tmp_path / "a") == new.holder


def test_claims_of_killed_processes_are_swept(tmp_path: Path) -> None:
    machine = process_token().split("-")[0]
    claim = tmp_path / f".a.{machine}-4194304-1-dead.claim"
    claim.mkdir()
    with acquire_lease(tmp_path / "a"):
        assert not claim.exists()


def test_a_living_process_is_not_dead() -> None:
    assert not is_dead(process_token())


def test_a_process_of_another_machine_is_not_called_dead() -> None:
    assert not is_dead(ELSEWHERE)


def test_a_reused_process_id_is_not_the_holder() -> None:
    machine, pid, started, rest = process_token().split("-")
    assert is_dead(f"{machine}-{pid}-{int(started) + 1}-{rest}")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LeaseUnavailable, match="file"):
        acquire_lease(tmp_path / "file" / "a")


def test_an_empty_folder_of_a_half_finished_release_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with acquire_lease(tmp_path / "a", wait_s=0) as lease:
        assert lease.held


CONTENDER = """
import sys, os, time
from pathlib import Path
from comfypin.lease import acquire_lease
lease, inside, log = map(Path, sys.argv[1:4])
for _ in range(int(sys.argv[4])):
    with acquire_lease(lease, wait_s=60):
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
        with log.open("a") as file:
            file.write("x")
        inside.unlink()
"""


def test_processes_exclude_each_other(tmp_path: Path) -> None:
    arguments = [str(tmp_path / name) for name in ("lease", "inside", "log")]
    command = [sys.executable, "-c", CONTENDER, *arguments, "25"]
    contenders = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    problems = [contender.communicate()[1].decode() for contender in contenders]
    assert problems == [""] * 4
    assert (tmp_path / "log").read_text() == "x" * 100


def test_a_holder_that_runs_here_is_not_dead_because_a_clock_was_set(tmp_path: Path) -> None:
    with acquire_lease(tmp_path / "a", ttl_s=60) as lease:
        os.utime(tmp_path / "a" / lease.holder.token, (0, 0))
        assert isinstance(try_acquire_lease(tmp_path / "a", ttl_s=60), Holder)
