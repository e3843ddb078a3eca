"""Declares the failures of locks: not found, not readable, not valid, not complete enough for what was asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from comfypin.errors import LockError, UsageError, declare, indent_lines

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockFinding:
    """One thing about a lock that a user should know: where it is, what was found, what is allowed.

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


# Findings whose line holds the `lock upgrade` that adds what is missing.
_ADDED_BY_UPGRADE = frozenset({"package-not-pinned", "no-source"})


@declare
class LockInvalid(LockError):
    """Raised with every finding when a lock file says something that no lock may say."""

    template = "The lock {where} is not valid: {count} to correct.{listed}"
    where: str
    findings: Sequence[LockFinding]

    @property
    def count(self) -> str:
        """Return how many findings there are, in words."""
        return "one thing" if len(self.findings) == 1 else f"{len(self.findings)} things"

    @property
    def listed(self) -> str:
        """Return the first findings, a line each."""
        return indent_lines(self.findings, at_most=50)


@declare
class LockUnreadable(LockError):
    """Raised when a lock file does not exist, is not a file, or is not JSON."""

    template = "The lock {where} cannot be read: {reason}."
    where: str
    reason: str


@declare
class LockNotFound(LockError):
    """Raised when no lock has the name or path that was asked for."""

    template = "There is no lock {wanted}{places}.{suggestion}"
    explained_remedy = (
        "Give the path of the lock's file, or the NAME of a release whose file is lockfiles/comfy-NAME.lock.json in "
        "the current folder; comfypin init makes one of your ComfyUI."
    )
    wanted: str
    searched: Sequence[str]
    near: Sequence[str] = ()
    _advice: str = ""

    @property
    def places(self) -> str:
        """Return what was looked for, empty if there was nothing to look for."""
        return f"; looked for {', '.join(self.searched)}" if self.searched else ""

    @property
    def suggestion(self) -> str:
        """Return the nearest names as a question, else the advice, else to look at the path again."""
        if self.near:
            return f" Did you mean {' or '.join(self.near)}?"
        return f" {self._advice}" if self._advice else " Check the path."


@declare
class LockNameEmpty(LockError):
    """Raised when the name of a lock is given, and is empty."""

    template = "The name of the lock is empty; is the variable that should hold it unset?"


@declare
class LockNotNamed(LockError):
    """Raised when a command needs a lock and nothing says which."""

    template = "No lock is named: give --lock FILE or NAME, or set LOCK_PATH or COMFY_VERSION_NAME ({offered})."
    command_hint = "{_instead}"
    releases: Sequence[str]
    _instead: str = ""

    @property
    def offered(self) -> str:
        """Return which releases could be named."""
        return f"the releases here are {', '.join(self.releases)}" if self.releases else "no release was found here"


@declare
class CarriedLockInvalid(LockError):
    """Raised when a variable that should hold a lock holds something else."""

    template = "{where} does not hold a lock: {reason}; `comfypin runpod up` fills it, so leave it as it is."
    where: str
    reason: str


@declare
class LockAddressUnpinned(LockError):
    """Raised when a lock is named by an address that does not say which bytes are meant."""

    template = (
        "{variable} does not say which lock it means: end it with #sha256=..., the sha256 of the file, since what an "
        "address answers may change."
    )
    variable: str


@declare
class LockIncomplete(LockError):
    """Raised when a readable lock leaves something unpinned, so that it cannot be realized as it stands."""

    template = (
        "The lock {where} is not complete, so it cannot be realized; {advice}, or see all of it with "
        "`comfypin lock check`:{listed}"
    )
    where: str
    findings: Sequence[LockFinding]

    @property
    def advice(self) -> str:
        """Return what pins the findings: resolving again does not add what a captured ComfyUI lacked."""
        if all(finding.rule in _ADDED_BY_UPGRADE for finding in self.findings):
            return "pin what is missing, as each line says"
        return "pin what is missing with `comfypin lock migrate --complete`"

    @property
    def listed(self) -> str:
        """Return the first findings, a line each."""
        return indent_lines(self.findings, at_most=8)


@declare
class SpecInvalid(UsageError):
    """Raised when a repository, model or package on the command line is not written as one."""

    template = "{spec!r} is not a {what}; write {form}."
    what: str
    spec: str
    form: str


@declare
class ModelUndescribed(LockError):
    """Raised when a source does not tell a model's sha256 or size."""

    template = "The model {source} cannot be pinned: {reason}."
    source: str
    reason: str
