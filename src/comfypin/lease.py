"""Leases on shared volumes, where flock may silently do nothing: atomic create, owner, heartbeat, expiry, take-over.

A lease is a folder that holds one file, named by a token that says who made it. Three file system operations carry
all of it, each atomic on local disks and on the network file systems that pods share:

- *create*: a private folder that already holds the token is renamed to the lease's name. A rename onto a folder that
  is not empty fails, so exactly one process gets it, and it is never seen half made.
- *take over*: the token of the dead holder is unlinked. Exactly one process succeeds, and a lease that was released
  and made again meanwhile has another token, so a living holder can never be thrown out by a late decision.
- *release*: the holder unlinks its own token, then the folder.

A holder lives while the token's mtime moves. Whoever waits judges that by its own clock, so clocks of machines need not
agree. Two kinds of dead holders are recognised without waiting: a process of this very machine that has ended, and one
whose last sign of life is many ttls old by the volume's clock (a pod of yesterday).
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from comfypin.errors import LeaseError, declare
from comfypin.machine_errors import reason_of

# A minute covers the pauses of a busy network volume, and is still bearable to wait for.
DEFAULT_TTL_S = 60.0
# Five beats may be lost before a living holder looks dead.
BEATS_PER_TTL = 6
# Generous, because it trusts the volume's clock instead of the waiter's.
LONG_DEAD_TTLS = 10
CLAIM_SUFFIX = ".claim"


@declare
class LeaseHeld(LeaseError):
    """Raised when another process holds the lease, and the time allowed for waiting is over."""

    template = "{path} is held by {holder}{doing} (waited {waited_s:.0f} s); wait for it to end, or stop it."
    path: Path
    holder: str
    purpose: str
    waited_s: float

    @property
    def doing(self) -> str:
        """Return what the holder does."""
        return f" to {self.purpose}" if self.purpose else ""


@declare
class LeaseLost(LeaseError):
    """Raised when another process took the lease over, because its holder gave no sign of life for too long."""

    template = (
        "The lease {path} was lost: this process was stopped, or cut off from the volume, for too long. Run it again."
    )
    path: Path


@declare
class LeaseUnavailable(LeaseError):
    """Raised when the file system does not let a lease be made."""

    template = "No lease can be made at {path}: {reason}. The folder must be writable, and have room."
    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lease: the unique token, the machine's name, the process and its purpose."""

    token: str
    hostname: str = "an unknown process"
    pid: int | None = None
    purpose: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.hostname}" if self.pid else self.hostname


class Lease:
    """A held lease. Its heart beats in a thread until `release`; `check` raises once it was lost."""

    def __init__(self, lease_path: Path, holder: Holder, *, ttl_s: float) -> None:
        self.path = lease_path
        self.holder = holder
        self.ttl_s = ttl_s
        self._token_file = lease_path / holder.token
        self._last_beat = time.monotonic()
        self._gone = False
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat_until_released, name=f"lease {lease_path.name}", daemon=True)
        self._heart.start()

    @property
    def held(self) -> bool:
        """Return whether it is still ours: nobody took it, and the last sign of life is younger than the ttl."""
        return not self._gone and time.monotonic() - self._last_beat < self.ttl_s

    def check(self) -> None:
        """Raise `LeaseLost` unless it is still ours. Call it before each effect that must not happen twice."""
        if not self.held and not self._touch_token():
            raise LeaseLost(path=self.path)

    def release(self) -> None:
        """Give it back. Repeatable; a lease that was lost meanwhile is left to its new holder."""
        self._stop.set()
        # A thread cannot wait for its own end.
        if threading.current_thread() is not self._heart:
            self._heart.join()
        self._gone = True
        with contextlib.suppress(OSError):
            self._token_file.unlink()
            self.path.rmdir()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def _beat_until_released(self) -> None:
        while not self._stop.wait(self.ttl_s / BEATS_PER_TTL):
            self._touch_token()

    def _touch_token(self) -> bool:
        try:
            os.utime(self._token_file)
        except FileNotFoundError:
            self._gone = True
        except OSError:
            # A volume that is away for a moment: `held` turns false by itself when it stays away.
            return False
        else:
            self._last_beat = time.monotonic()
        return not self._gone


@dataclass(slots=True, kw_only=True)
class LeaseWatch:
    """Decides, from what one waiter has seen, when a lease's holder is dead. Takes a clock for tests."""

    path: Path
    ttl_s: float = DEFAULT_TTL_S
    clock: Callable[[], float] = time.monotonic
    _token: str | None = None
    _mtime_ns: int = 0
    _since: float = field(default=0.0)

    def find_dead_token(self) -> str | None:
        """Return the token of a dead holder, or None if nobody holds the lease or the holder lives."""
        token_and_mtime = _read_token(self.path)
        if token_and_mtime is None:
            self._token = None
            return None
        holder_token, mtime_ns = token_and_mtime
        if is_dead(holder_token):
            return holder_token
        if (holder_token, mtime_ns) != (self._token, self._mtime_ns):
            self._token, self._mtime_ns, self._since = holder_token, mtime_ns, self.clock()
            if _runs_here(holder_token):
                # A changed clock can make a fresh sign of life look old, so only a whole ttl of silence counts.
                return None
            long_ago = volume_time_ns(self.path.parent) - mtime_ns > self.ttl_s * LONG_DEAD_TTLS * 1e9
            return holder_token if long_ago else None
        return holder_token if self.clock() - self._since >= self.ttl_s else None


def try_acquire_lease(lease_path: Path, *, purpose: str = "", ttl_s: float = DEFAULT_TTL_S) -> Lease | Holder:
    """Take the lease at `lease_path`, or return who holds it. A holder that died on this machine is replaced at once.

    Raises `LeaseUnavailable` if the file system refuses.
    """
    watch = LeaseWatch(path=lease_path, ttl_s=ttl_s)
    return _try_take(lease_path, watch, purpose)


def acquire_lease(
    lease_path: Path,
    *,
    purpose: str = "",
    ttl_s: float = DEFAULT_TTL_S,
    wait_s: float | None = None,
    poll_s: float = 0.2,
    on_wait: Callable[[Holder], None] | None = None,
) -> Lease:
    """Take the lease at `lease_path`, waiting up to `wait_s` seconds (None: for ever) until its holder ends or expires.

    `on_wait` gets the holder at every poll and may raise to give up. Raises `LeaseHeld`, `LeaseUnavailable`.
    """
    started = time.monotonic()
    watch = LeaseWatch(path=lease_path, ttl_s=ttl_s)
    while True:
        lease_or_holder = _try_take(lease_path, watch, purpose)
        if isinstance(lease_or_holder, Lease):
            return lease_or_holder
        waited_s = time.monotonic() - started
        if wait_s is not None and waited_s >= wait_s:
            raise LeaseHeld(
                path=lease_path, holder=str(lease_or_holder), purpose=lease_or_holder.purpose, waited_s=waited_s
            )
        if on_wait is not None:
            on_wait(lease_or_holder)
        # Waiters that started together must not poll together.
        time.sleep(poll_s * (0.5 + secrets.randbelow(1000) / 1000))


def lease_holder(lease_path: Path) -> Holder | None:
    """Return who holds the lease now (a dead holder counts until it is replaced), or None."""
    token_and_mtime = _read_token(lease_path)
    return _read_holder(lease_path, token_and_mtime[0]) if token_and_mtime else None


def volume_time_ns(folder: Path) -> int:
    """Return the time by the clock of the volume that holds `folder`: the mtime of something just made there."""
    probe_folder = folder / f".{process_token()}{CLAIM_SUFFIX}"
    try:
        probe_folder.mkdir()
        return probe_folder.stat().st_mtime_ns
    except OSError as error:
        raise LeaseUnavailable(path=folder, reason=reason_of(error)) from error
    finally:
        with contextlib.suppress(OSError):
            probe_folder.rmdir()


def process_token() -> str:
    """Return a name for something temporary of this process; `is_dead` tells from it whether the process has ended."""
    return f"{this_machine()}-{os.getpid()}-{_process_start(os.getpid())}-{secrets.token_hex(6)}"


def is_dead(token: str) -> bool:
    """Return whether the process that made this token ran on this machine and has ended. Unknown machines: False."""
    machine, process_id, start_ticks, *_ = [*token.split("-"), "", "", ""]
    if machine != this_machine() or machine == "" or not process_id.isdigit() or not start_ticks.isdigit():
        return False
    if _process_start(int(process_id)) == int(start_ticks):
        return False
    try:
        os.kill(int(process_id), 0)
    except ProcessLookupError:
        return True
    except OSError:
        # Another user's process, which /proc may hide from us.
        return False
    return _process_start(int(process_id)) != int(start_ticks)


def _runs_here(token: str) -> bool:
    """Return whether the process that made this token runs on this machine now."""
    machine, process_id, start_ticks, *_ = [*token.split("-"), "", "", ""]
    is_ours = machine == this_machine() != "" and process_id.isdigit() and start_ticks.isdigit()
    # Zero stands for a process whose start could not be read: it says nothing.
    return is_ours and 0 != int(start_ticks) == _process_start(int(process_id))


def _try_take(lease_path: Path, lease_watch: LeaseWatch, purpose: str) -> Lease | Holder:
    while True:
        token_and_mtime = _read_token(lease_path)
        if token_and_mtime is not None:
            dead_token = lease_watch.find_dead_token()
            if dead_token is None:
                return _read_holder(lease_path, token_and_mtime[0])
            # Another waiter may have thrown the dead holder out first.
            with contextlib.suppress(FileNotFoundError):
                (lease_path / dead_token).unlink()
        holder_token = _create_lease(lease_path, purpose)
        if holder_token is not None:
            _sweep_claims(lease_path)
            return Lease(lease_path, _read_holder(lease_path, holder_token), ttl_s=lease_watch.ttl_s)


def _read_token(lease_path: Path) -> tuple[str, int] | None:
    """Return the token in the lease's folder and its mtime. It is opened, because that makes NFS check its cache."""
    try:
        for holder_token in lease_path.iterdir():
            with holder_token.open("rb") as file:
                return holder_token.name, os.fstat(file.fileno()).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:
            return None
        raise LeaseUnavailable(path=lease_path, reason=reason_of(error)) from error
    return None


def _create_lease(lease_path: Path, purpose: str) -> str | None:
    """Try to make the lease; return the token, or None if somebody else was first."""
    holder_token = process_token()
    claim_folder = lease_path.with_name(f".{lease_path.name}.{holder_token}{CLAIM_SUFFIX}")
    facts = {"hostname": os.uname().nodename, "pid": os.getpid(), "purpose": purpose}
    try:
        lease_path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LeaseUnavailable(path=lease_path, reason=reason_of(error)) from error
    try:
        claim_folder.mkdir()
        (claim_folder / holder_token).write_text(json.dumps(facts))
        # The one step that decides: a rename onto a folder that is not empty fails.
        claim_folder.rename(lease_path)
    except OSError as error:
        shutil.rmtree(claim_folder, ignore_errors=True)
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            # Some file systems refuse to rename onto an empty folder too; this removes only an empty one.
            with contextlib.suppress(OSError):
                lease_path.rmdir()
            return None
        raise LeaseUnavailable(path=lease_path, reason=reason_of(error)) from error
    return holder_token


def _read_holder(path: Path, holder_token: str) -> Holder:
    try:
        holder_facts = json.loads((path / holder_token).read_text())
        return Holder(
            token=holder_token,
            hostname=str(holder_facts["hostname"]),
            pid=int(holder_facts["pid"]),
            purpose=str(holder_facts["purpose"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(token=holder_token)


def _sweep_claims(path: Path) -> None:
    """Remove what processes that were killed while they made a claim left beside the lease."""
    with contextlib.suppress(OSError):
        for claim_folder in path.parent.glob(f".*{CLAIM_SUFFIX}"):
            if is_dead(claim_folder.name.removesuffix(CLAIM_SUFFIX).rpartition(".")[2]):
                shutil.rmtree(claim_folder, ignore_errors=True)


@functools.cache
def this_machine() -> str:
    """Return a short name for this machine's boot and process namespace, within which process ids mean something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Containers of one host share its boot id, and number their processes each for itself.
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {namespace} {os.uname().nodename}".encode()).hexdigest()[:12]


def _process_start(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 if it does not run (a zombie does not)."""
    try:
        # A program's name may hold blanks and brackets, so fields count from the last bracket.
        stat_fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if stat_fields[0] in {"Z", "X"} else int(stat_fields[19])
