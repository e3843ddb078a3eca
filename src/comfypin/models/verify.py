"""Whether the files are what the lock says: findings as values, cheap where nothing changed, all cores where asked."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from comfypin.digest import Digest
from comfypin.errors import ModelError
from comfypin.lock.model import ModelPin
from comfypin.models.errors import ModelDiffers, StoreFailed
from comfypin.models.file_formats import format_problem
from comfypin.models.pull_limits import available_cores
from comfypin.models.store import BlobStore

# Checking what is known waits for the file system, not for the processor.
STAT_THREADS = 8


@dataclass(frozen=True, slots=True)
class Present:
    """The file is what the pin says; `proven` is False where the pin has no sha256 to prove it with."""

    size_bytes: int
    proven: bool = True


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no file, or a link that leads nowhere."""


@dataclass(frozen=True, slots=True)
class WrongSize:
    """The file has another size than the pin."""

    actual_bytes: int
    expected_bytes: int


@dataclass(frozen=True, slots=True)
class Corrupt:
    """The file has other bytes than the pin."""

    actual: Digest
    expected: Digest


@dataclass(frozen=True, slots=True)
class Refused:
    """The bytes are what the lock says, and of a format that is broken or not allowed."""

    problem: ModelError


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The file system does not let the file be read."""

    reason: str


Finding: TypeAlias = Present | Missing | WrongSize | Corrupt | Refused | Unreadable


def inspect(pin: ModelPin, path: Path, store: BlobStore, *, deep: bool = False) -> Finding:
    """Compare one file with its pin. `deep` reads every byte; otherwise what did not change since is believed."""
    try:
        status = path.stat()
        if not path.is_file():
            return Unreadable("it is not a file")
        if pin.size_bytes is not None and status.st_size != pin.size_bytes:
            return WrongSize(status.st_size, pin.size_bytes)
        if pin.sha256 is not None:
            actual = store.digest_of(path.resolve(), deep=deep)
            if actual != pin.sha256:
                return Corrupt(actual, pin.sha256)
        problem = format_problem(path, pin)
    except FileNotFoundError:
        return Missing()
    except OSError as error:
        return Unreadable(error.strerror or str(error))
    return Refused(problem) if problem is not None else Present(status.st_size, proven=pin.sha256 is not None)


def inspect_all(
    models: Sequence[tuple[ModelPin, Path]],
    store: BlobStore,
    *,
    deep: bool = False,
    told: Callable[[ModelPin, Finding], None] = lambda pin, finding: None,
) -> list[Finding]:
    """Compare many, in the order given. Hashing uses every core, the largest files first."""
    threads = min(len(models), STAT_THREADS if not deep else available_cores()) or 1

    def one(index: int) -> Finding:
        pin, path = models[index]
        finding = inspect(pin, path, store, deep=deep)
        told(pin, finding)
        return finding

    order = sorted(range(len(models)), key=lambda index: -(models[index][0].size_bytes or 0)) if deep else None
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        if order is None:
            return list(pool.map(one, range(len(models))))
        found = dict(zip(order, pool.map(one, order), strict=True))
    return [found[index] for index in range(len(models))]


def failure(pin: ModelPin, finding: Finding) -> ModelError | None:
    """The error that a finding is, for those who need the files to be right; None for Present."""
    match finding:
        case Present():
            return None
        case Refused(problem):
            return problem
        case Unreadable(reason):
            return StoreFailed(path=pin.target_path, reason=reason)
        case _:
            return ModelDiffers(name=pin.name, target=pin.target_path, reason=describe(finding))


def describe(finding: Finding) -> str:
    """A finding in words, to be put after a model's name."""
    match finding:
        case Present(proven=proven):
            return "is as pinned" if proven else "is present (the lock has no sha256 to verify it with)"
        case Missing():
            return "is missing"
        case WrongSize(actual, expected):
            return f"has {actual} bytes instead of {expected}"
        case Corrupt(actual, expected):
            return f"has the sha256 {actual.hex} instead of {expected.hex}"
        case Refused(problem):
            return f"is refused: {problem.message}"
        case Unreadable(reason):
            return f"cannot be read: {reason}"
