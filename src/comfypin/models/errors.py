"""Declares the failures of models: a source that does not give the file, bytes that differ from the pin, a refused
path.
"""

from collections.abc import Sequence
from pathlib import Path

from comfypin.errors import ModelError

GB = 1_000_000_000


class SourceFailed(ModelError):
    """One source did not give the file. `reason` is a clause without the address; the next source is tried."""

    reason: str

    def __init__(self, *, uri: str, reason: str, **facts: object) -> None:
        super().__init__(f"{uri}: {reason}", uri=uri, reason=reason, **facts)
        self.uri = uri
        self.reason = reason


class SourceUnavailable(SourceFailed):
    """The source could not be reached, broke off, stalled, or said it is busy: trying again may help."""

    def __init__(self, *, uri: str, reason: str, retry_after_s: float | None = None, **facts: object) -> None:
        super().__init__(uri=uri, reason=reason, **facts)
        self.retry_after_s = retry_after_s


class SourceRefused(SourceFailed):
    """The source wants credentials that it did not get (401, 403)."""


class SourceGated(SourceRefused):
    """The repository is gated: its licence has to be accepted on the hub's page, with the account of the token."""

    def __init__(self, *, uri: str, page: str, has_token: bool) -> None:
        token = "the account of HF_TOKEN" if has_token else "your account, and set HF_TOKEN to a token of it"
        super().__init__(uri=uri, reason=f"the repository is gated: accept its terms at {page} with {token}", page=page)


class SourceMissing(SourceFailed):
    """The source does not have the file."""


class SourceChanged(SourceFailed):
    """The file at the source changed while it was read."""


class WrongLength(SourceFailed):
    """The source's file has another size than the pin."""

    def __init__(self, *, uri: str, expected_bytes: int, actual_bytes: int) -> None:
        super().__init__(
            uri=uri,
            reason=f"it has {actual_bytes} bytes, the lock says {expected_bytes}",
            expected_bytes=expected_bytes,
            actual_bytes=actual_bytes,
        )


class WrongDigest(SourceFailed):
    """The source's bytes are not the promised ones."""

    def __init__(self, *, uri: str, expected: str, actual: str) -> None:
        super().__init__(
            uri=uri, reason=f"its sha256 is {actual}, the lock says {expected}", expected=expected, actual=actual
        )


class NotAModel(SourceFailed):
    """The source answered with a page for people instead of the file."""


class RedirectRefused(SourceFailed):
    """The source led to an address that it must not lead to."""


class UnknownSource(SourceFailed):
    """No source understands the address."""


class ModelUnavailable(ModelError):
    """None of a model's sources gave it."""

    def __init__(self, *, name: str, target: str, reasons: Sequence[str]) -> None:
        tried = "".join(f"\n  - {reason}" for reason in reasons) or " the lock names no source for it."
        super().__init__(
            f"The model {name} ({target}) could not be fetched:{tried}", name=name, target=target, reasons=list(reasons)
        )


class ModelsFailed(ModelError):
    """Some models of a lock could not be brought or do not verify; the others are in their places."""

    def __init__(self, *, failures: Sequence[ModelError], total: int) -> None:
        lines = "".join(f"\n{failure.message}" for failure in failures)
        super().__init__(
            f"{len(failures)} of {total} models failed.{lines}",
            failures=[failure.to_json() for failure in failures],
            total=total,
        )
        self.failures = tuple(failures)


class DiskTooSmall(ModelError):
    """There is not enough free space for what has to be written."""

    def __init__(self, *, folder: Path, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"{folder} needs {needed_bytes / GB:.2f} GB and has {free_bytes / GB:.2f} GB free; "
            "free some space (comfypin models gc), or take a larger volume.",
            folder=str(folder),
            needed_bytes=needed_bytes,
            free_bytes=free_bytes,
        )


class TargetRefused(ModelError):
    """A pin's target_path is no place where a model may be put."""

    def __init__(self, *, name: str, target: str, reason: str) -> None:
        super().__init__(
            f"The model {name} may not be put at {target!r}: {reason}.", name=name, target=target, reason=reason
        )


class PickleRefused(ModelError):
    """The file is a pickle, which can run code when it is loaded, and its pin does not allow that."""

    def __init__(self, *, name: str, target: str, reason: str) -> None:
        super().__init__(
            f"The model {name} ({target}) is refused: {reason}. A pickle can run code when it is loaded; "
            'use a .safetensors file, or set "allow_pickle": true at this pin if you trust it.',
            name=name,
            target=target,
            reason=reason,
        )


class NotSafetensors(ModelError):
    """A file that is called .safetensors is not one."""

    def __init__(self, *, name: str, target: str, reason: str) -> None:
        super().__init__(
            f"The model {name} ({target}) is not a safetensors file: {reason}.", name=name, target=target, reason=reason
        )


class ModelDiffers(ModelError):
    """A model is missing, has the wrong bytes, or cannot be verified."""

    def __init__(self, *, name: str, target: str, reason: str) -> None:
        super().__init__(f"The model {name} ({target}) {reason}.", name=name, target=target, reason=reason)


class StoreFailed(ModelError):
    """The file system refused something that the store needs."""

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(
            f"{path}: {reason}; the models' folder must be writable and healthy.", path=path, reason=reason
        )
