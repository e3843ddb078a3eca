"""Failures of locks: not found, not readable, not valid, not complete enough for what was asked of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from comfypin.errors import LockError, UsageError

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockFinding:
    """One thing about a lock that a user should know: where it is, what was there, what is allowed.

    `rule` is a stable name for machines (`commit-not-pinned`); `path` is a JSON path (`$.models[0].sha256`).
    """

    rule: str
    path: str
    found: str
    allowed: str
    severity: Severity = "error"

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; {self.allowed}"

    def to_json(self) -> dict[str, object]:
        return {
            "rule": self.rule,
            "severity": self.severity,
            "path": self.path,
            "found": self.found,
            "allowed": self.allowed,
        }


class LockInvalid(LockError):
    """A lock file says something that no lock may say; every finding at once."""

    def __init__(self, *, where: str, findings: Sequence[LockFinding]) -> None:
        shown = "".join(f"\n  {finding}" for finding in findings[:50])
        more = f"\n  and {len(findings) - 50} more" if len(findings) > 50 else ""
        count = "one thing is" if len(findings) == 1 else f"{len(findings)} things are"
        super().__init__(
            f"The lock {where} cannot be used, {count} wrong in it:{shown}{more}",
            where=where,
            findings=[finding.to_json() for finding in findings],
        )
        self.findings = tuple(findings)


class LockUnreadable(LockError):
    """A lock file is not there, is not a file, or its bytes are not JSON."""

    def __init__(self, *, where: str, reason: str) -> None:
        super().__init__(f"The lock {where} cannot be read: {reason}.", where=where, reason=reason)


class LockNotFound(LockError):
    """No lock has the name, or lies at the path, that was asked for."""

    def __init__(self, *, wanted: str, searched: Sequence[str], near: Sequence[str] = ()) -> None:
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        super().__init__(
            f"There is no lock {wanted}; looked for {', '.join(searched)}.{hint}",
            wanted=wanted,
            searched=list(searched),
            near=list(near),
        )


class LockNotNamed(LockError):
    """Something needs a lock and nothing says which."""

    def __init__(self, *, releases: Sequence[str]) -> None:
        there = f"the releases here are {', '.join(releases)}" if releases else "no release lies in the usual folders"
        super().__init__(
            f"No lock is named: give --lock FILE or NAME, or set LOCK_PATH or COMFY_VERSION_NAME ({there}).",
            releases=list(releases),
        )


class LockIncomplete(LockError):
    """A lock is readable, and something in it is not pinned, so that it cannot be realized as it stands."""

    def __init__(self, *, where: str, findings: Sequence[LockFinding]) -> None:
        shown = "".join(f"\n  {finding}" for finding in findings[:8])
        more = f"\n  and {len(findings) - 8} more (comfypin lock check)" if len(findings) > 8 else ""
        super().__init__(
            f"The lock {where} cannot be realized as it stands; make its pins complete with "
            f"`comfypin lock migrate --complete`:{shown}{more}",
            where=where,
            findings=[finding.to_json() for finding in findings],
        )
        self.findings = tuple(findings)


class SpecInvalid(UsageError):
    """A repository, model or package on the command line is not written as one."""

    def __init__(self, *, what: str, spec: str, form: str) -> None:
        super().__init__(f"{spec!r} is not a {what}; write {form}.", what=what, spec=spec)


class ModelUndescribed(LockError):
    """A model's sha256 or size cannot be learned from its source."""

    def __init__(self, *, source: str, reason: str) -> None:
        super().__init__(f"The model {source} cannot be pinned: {reason}.", source=source, reason=reason)
