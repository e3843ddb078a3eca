"""Verifies files against their pins: findings are values, cheap if nothing changed, on all cores if bytes are read."""

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
    """The file matches its pin; `proven` is False if the pin has no sha256 to prove it with."""

    size_bytes: int
    proven: bool = True


@dataclass(frozen=True, slots=True)
class Missing:
    """No file exists, or its link leads nowhere."""


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
class FormatRefused:
    """The bytes are what the lock says, and their format is broken or not allowed."""

    problem: ModelError


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The file system does not let the file be read."""

    reason: str


ModelFinding: TypeAlias = Present | Missing | WrongSize | Corrupt | FormatRefused | Unreadable


def inspect_model(model_pin: ModelPin, file_path: Path, store: BlobStore, *, deep: bool = False) -> ModelFinding:
    """Compare one file with its pin. `read_all_bytes` hashes it; otherwise a digest cached for the unchanged file
    counts.
    """
    try:
        file_status = file_path.stat()
        if not file_path.is_file():
            return Unreadable("it is not a file")
        if model_pin.size_bytes is not None and file_status.st_size != model_pin.size_bytes:
            return WrongSize(file_status.st_size, model_pin.size_bytes)
        if model_pin.sha256 is not None:
            actual = store.digest_of(file_path.resolve(), deep=deep)
            if actual != model_pin.sha256:
                return Corrupt(actual, model_pin.sha256)
        problem = format_problem(file_path, model_pin)
    except FileNotFoundError:
        return Missing()
    except OSError as error:
        return Unreadable(error.strerror or str(error))
    return (
        FormatRefused(problem)
        if problem is not None
        else Present(file_status.st_size, proven=model_pin.sha256 is not None)
    )


def inspect_models(
    models: Sequence[tuple[ModelPin, Path]],
    store: BlobStore,
    *,
    read_all_bytes: bool = False,
    report: Callable[[ModelPin, ModelFinding], None] = lambda pin, model_finding: None,
) -> list[ModelFinding]:
    """Compare many files, in the order given. Hashing uses every core, the largest files first."""
    # Each thread holds one buffer, and more threads than cores would hash no faster.
    threads = min(len(models), STAT_THREADS if not read_all_bytes else available_cores()) or 1

    def inspect_one(index: int) -> ModelFinding:
        model_pin, file_path = models[index]
        model_finding = inspect_model(model_pin, file_path, store, deep=read_all_bytes)
        report(model_pin, model_finding)
        return model_finding

    hash_order = (
        sorted(range(len(models)), key=lambda index: -(models[index][0].size_bytes or 0)) if read_all_bytes else None
    )
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as thread_pool:
        if hash_order is None:
            return list(thread_pool.map(inspect_one, range(len(models))))
        findings_by_index = dict(zip(hash_order, thread_pool.map(inspect_one, hash_order), strict=True))
    return [findings_by_index[index] for index in range(len(models))]


def finding_failure(model_pin: ModelPin, finding: ModelFinding) -> ModelError | None:
    """Return the error that a finding means to those who need the files to be right; None for Present."""
    match finding:
        case Present():
            return None
        case FormatRefused(problem):
            return problem
        case Unreadable(reason):
            return StoreFailed(path=model_pin.target_path, reason=reason)
        case _:
            return ModelDiffers(name=model_pin.name, target=model_pin.target_path, reason=describe_finding(finding))


def describe_finding(finding: ModelFinding) -> str:
    """Return a finding in words that follow a model's name."""
    match finding:
        case Present(proven=proven):
            return "is as pinned" if proven else "is present (the lock has no sha256 to verify it with)"
        case Missing():
            return "is missing"
        case WrongSize(actual, expected):
            return f"has {actual} bytes instead of {expected}"
        case Corrupt(actual, expected):
            return f"has the sha256 {actual.hex} instead of {expected.hex}"
        case FormatRefused(problem):
            return f"is refused: {problem.message}"
        case Unreadable(reason):
            return f"cannot be read: {reason}"
