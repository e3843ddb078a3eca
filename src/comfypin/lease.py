"""Leases on shared volumes, where flock may silently be nothing: atomic create, owner, heartbeat, expiry, take-over.

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

from comfypin.errors import LeaseError
from comfypin.machine_errors import reason_of

DEFAULT_TTL_S = 60.0
BEATS_PER_TTL = 6
LONG_DEAD_TTLS = 10
CLAIM_SUFFIX = ".claim"


class LeaseHeld(LeaseError):
    """Somebody else holds the lease, and the time to wait for it is over."""

    def __init__(self, *, path: Path, holder: str, purpose: str, waited_s: float) -> None:
        doing = f" to {purpose}" if purpose else ""
        super().__init__(
            f"{path} is held by {holder}{doing} (waited {waited_s:.0f} s); wait for it to end, or stop it.",
            path=str(path),
            holder=holder,
            purpose=purpose,
            waited_s=waited_s,
        )


class LeaseLost(LeaseError):
    """The holder did not give a sign of life for too long, and somebody else took over."""

    def __init__(self, *, path: Path) -> None:
        super().__init__(
            f"The lease {path} was lost: this process was stopped, or cut off from the volume, for too long. "
            "Run it again.",
            path=str(path),
        )


class LeaseUnavailable(LeaseError):
    """The file system does not let a lease be made there."""

    def __init__(self, *, path: Path, reason: str) -> None:
        super().__init__(
            f"No lease can be made at {path}: {reason}. The folder must be writable, and have room.",
            path=str(path),
            reason=reason,
        )
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lease: the token (unique), the machine's name, the process and what it says it does."""

    token: str
    hostname: str = "an unknown process"
    pid: int | None = None
    purpose: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.hostname}" if self.pid else self.hostname


class Lease:
    """A held lease. Its heart beats in a thread until `release`; `check` raises once it was lost."""

    def __init__(self, path: Path, holder: Holder, *, ttl_s: float) -> None:
        self.path = path
        self.holder = holder
        self.ttl_s = ttl_s
        self._token_file = path / holder.token
        self._last_beat = time.monotonic()
        self._gone = False
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name=f"lease {path.name}", daemon=True)
        self._heart.start()

    @property
    def held(self) -> bool:
        """Whether it is still ours: nobody took it, and the last sign of life is younger than the ttl."""
        return not self._gone and time.monotonic() - self._last_beat < self.ttl_s

    def check(self) -> None:
        """Raise `LeaseLost` unless it is still ours. To be called before each effect that others must not see twice."""
        if not self.held and not self._touch():
            raise LeaseLost(path=self.path)

    def release(self) -> None:
        """Give it back. Repeatable; a lease that was lost meanwhile is left to its new holder."""
        self._stop.set()
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

    def _beat(self) -> None:
        while not self._stop.wait(self.ttl_s / BEATS_PER_TTL):
            self._touch()

    def _touch(self) -> bool:
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
    """What one waiter has seen of a lease: decides when its holder is dead. Takes a clock for tests."""

    path: Path
    ttl_s: float = DEFAULT_TTL_S
    clock: Callable[[], float] = time.monotonic
    _token: str | None = None
    _mtime_ns: int = 0
    _since: float = field(default=0.0)

    def dead_token(self) -> str | None:
        """The token of a holder that is dead, or None while it lives or nobody holds it."""
        seen = _look(self.path)
        if seen is None:
            self._token = None
            return None
        token, mtime_ns = seen
        if is_dead(token):
            return token
        if (token, mtime_ns) != (self._token, self._mtime_ns):
            self._token, self._mtime_ns, self._since = token, mtime_ns, self.clock()
            if _runs_here(token):
                return None  # a clock that was set makes a sign of life look old; silence for a ttl does not
            long_ago = volume_time_ns(self.path.parent) - mtime_ns > self.ttl_s * LONG_DEAD_TTLS * 1e9
            return token if long_ago else None
        return token if self.clock() - self._since >= self.ttl_s else None


def try_acquire(path: Path, *, purpose: str = "", ttl_s: float = DEFAULT_TTL_S) -> Lease | Holder:
    """Take the lease at `path`, or say who holds it. A holder that died on this machine is replaced at once.

    Raises `LeaseUnavailable` where the file system refuses.
    """
    watch = LeaseWatch(path=path, ttl_s=ttl_s)
    return _attempt(path, watch, purpose)


def acquire(
    path: Path,
    *,
    purpose: str = "",
    ttl_s: float = DEFAULT_TTL_S,
    wait_s: float | None = None,
    poll_s: float = 0.2,
    on_wait: Callable[[Holder], None] | None = None,
) -> Lease:
    """Take the lease at `path`, waiting up to `wait_s` seconds (None: for ever) for its holder to end or to expire.

    `on_wait` is told the holder at every poll and may raise to give up. Raises `LeaseHeld`, `LeaseUnavailable`.
    """
    started = time.monotonic()
    watch = LeaseWatch(path=path, ttl_s=ttl_s)
    while True:
        result = _attempt(path, watch, purpose)
        if isinstance(result, Lease):
            return result
        waited = time.monotonic() - started
        if wait_s is not None and waited >= wait_s:
            raise LeaseHeld(path=path, holder=str(result), purpose=result.purpose, waited_s=waited)
        if on_wait is not None:
            on_wait(result)
        # Waiters that started together must not poll together.
        time.sleep(poll_s * (0.5 + secrets.randbelow(1000) / 1000))


def holder_of(path: Path) -> Holder | None:
    """Who holds the lease now (a dead holder counts until it is replaced), or None."""
    seen = _look(path)
    return _describe(path, seen[0]) if seen else None


def volume_time_ns(folder: Path) -> int:
    """What the clock of the volume that holds `folder` says: the mtime of something just made there."""
    probe = folder / f".{process_token()}{CLAIM_SUFFIX}"
    try:
        probe.mkdir()
        return probe.stat().st_mtime_ns
    except OSError as error:
        raise LeaseUnavailable(path=folder, reason=reason_of(error)) from error
    finally:
        with contextlib.suppress(OSError):
            probe.rmdir()


def process_token() -> str:
    """A name for something temporary of this process: `is_dead` tells from it alone whether the process has ended."""
    return f"{this_machine()}-{os.getpid()}-{_started(os.getpid())}-{secrets.token_hex(6)}"


def is_dead(token: str) -> bool:
    """Whether the process that made this token ran on this machine and has ended. Unknown machines: False."""
    machine, pid, started, *_ = [*token.split("-"), "", "", ""]
    if machine != this_machine() or machine == "" or not pid.isdigit() or not started.isdigit():
        return False
    if _started(int(pid)) == int(started):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        # Another user's process, which /proc may hide from us.
        return False
    return _started(int(pid)) != int(started)


def _runs_here(token: str) -> bool:
    """Whether the process that made this token runs on this machine now."""
    machine, pid, started, *_ = [*token.split("-"), "", "", ""]
    is_ours = machine == this_machine() != "" and pid.isdigit() and started.isdigit()
    return is_ours and 0 != int(started) == _started(int(pid))


def _attempt(path: Path, watch: LeaseWatch, purpose: str) -> Lease | Holder:
    while True:
        seen = _look(path)
        if seen is not None:
            dead = watch.dead_token()
            if dead is None:
                return _describe(path, seen[0])
            with contextlib.suppress(FileNotFoundError):
                (path / dead).unlink()
        token = _create(path, purpose)
        if token is not None:
            _sweep_claims(path)
            return Lease(path, _describe(path, token), ttl_s=watch.ttl_s)


def _look(path: Path) -> tuple[str, int] | None:
    """The token in the lease's folder and its mtime. The file is opened, because NFS checks its cache then."""
    try:
        for token in path.iterdir():
            with token.open("rb") as file:
                return token.name, os.fstat(file.fileno()).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:
            return None
        raise LeaseUnavailable(path=path, reason=reason_of(error)) from error
    return None


def _create(path: Path, purpose: str) -> str | None:
    """Try to make the lease; the token, or None where somebody else was first."""
    token = process_token()
    claim = path.with_name(f".{path.name}.{token}{CLAIM_SUFFIX}")
    facts = {"hostname": os.uname().nodename, "pid": os.getpid(), "purpose": purpose}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LeaseUnavailable(path=path, reason=reason_of(error)) from error
    try:
        claim.mkdir()
        (claim / token).write_text(json.dumps(facts))
        claim.rename(path)
    except OSError as error:
        shutil.rmtree(claim, ignore_errors=True)
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            # Some file systems refuse to rename onto an empty folder too; this removes only an empty one.
            with contextlib.suppress(OSError):
                path.rmdir()
            return None
        raise LeaseUnavailable(path=path, reason=reason_of(error)) from error
    return token


def _describe(path: Path, token: str) -> Holder:
    try:
        facts = json.loads((path / token).read_text())
        return Holder(
            token=token, hostname=str(facts["hostname"]), pid=int(facts["pid"]), purpose=str(facts["purpose"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(token=token)


def _sweep_claims(path: Path) -> None:
    """Remove what processes that were killed while they made a claim left beside the lease."""
    with contextlib.suppress(OSError):
        for claim in path.parent.glob(f".*{CLAIM_SUFFIX}"):
            if is_dead(claim.name.removesuffix(CLAIM_SUFFIX).rpartition(".")[2]):
                shutil.rmtree(claim, ignore_errors=True)


@functools.cache
def this_machine() -> str:
    """A short name for this machine's boot and process namespace, within which process ids mean something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {namespace} {os.uname().nodename}".encode()).hexdigest()[:12]


def _started(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 for one that does not run (a zombie does not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in {"Z", "X"} else int(fields[19])
