"""Failures of leases: somebody else works there, or the lease was taken over while its holder was away."""

from pathlib import Path

from comfypin.errors import LeaseError


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
