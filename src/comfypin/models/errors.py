"""Declares the failures of models: a source that does not give the file, bytes that differ from the pin, a refused
path.
"""

from collections.abc import Sequence
from pathlib import Path

from comfypin.errors import ModelError, declare
from comfypin.plurals import format_size


class SourceFailed(ModelError):
    """Raised when a source does not give the file. `reason` is a clause without the address; the next one is tried."""

    reason: str

    def __init__(self, *, uri: str, reason: str, **facts: object) -> None:
        super().__init__(f"{uri}: {reason}", uri=uri, reason=reason, **facts)
        self.uri = uri
        self.reason = reason


class SourceUnavailable(SourceFailed):
    """Raised when a source cannot be reached, breaks off, stalls, or is busy: trying again may help."""

    def __init__(self, *, uri: str, reason: str, retry_after_s: float | None = None, **facts: object) -> None:
        super().__init__(uri=uri, reason=reason, **facts)
        self.retry_after_s = retry_after_s


class SourceRefused(SourceFailed):
    """Raised when a source wants credentials that it did not get (401, 403)."""


class SourceGated(SourceRefused):
    """Raised when a repository is gated: its licence must be accepted on the hub's page, by the token's account."""

    def __init__(self, *, uri: str, page: str, has_token: bool) -> None:
        token = "the account of HF_TOKEN" if has_token else "your account, and set HF_TOKEN to a token of it"
        super().__init__(uri=uri, reason=f"the repository is gated: accept its terms at {page} with {token}", page=page)


class SourceMissing(SourceFailed):
    """Raised when a source does not have the file."""


class SourceChanged(SourceFailed):
    """Raised when the file at the source changes while it is read."""


class WrongLength(SourceFailed):
    """Raised when a source's file has another size than the pin."""

    def __init__(self, *, uri: str, expected_bytes: int, actual_bytes: int) -> None:
        super().__init__(
            uri=uri,
            reason=f"it has {actual_bytes} bytes, the lock says {expected_bytes}",
            expected_bytes=expected_bytes,
            actual_bytes=actual_bytes,
        )


class WrongDigest(SourceFailed):
    """Raised when a source's bytes are not those of the pin."""

    def __init__(self, *, uri: str, expected: str, actual: str) -> None:
        super().__init__(
            uri=uri, reason=f"its sha256 is {actual}, the lock says {expected}", expected=expected, actual=actual
        )


class NotAModel(SourceFailed):
    """Raised when a source answers with a web page instead of the file."""


class RedirectRefused(SourceFailed):
    """Raised when a source redirects to an address that it must not lead to."""


class UnknownSource(SourceFailed):
    """Raised when no source understands the address."""


@declare
class ModelUnavailable(ModelError):
    """Raised when none of a model's sources gives it."""

    template = "The model {name} ({target}) could not be fetched:{tried}"
    name: str
    target: str
    reasons: Sequence[str]

    @property
    def tried(self) -> str:
        """Return why each source failed, a line each."""
        return "".join(f"\n  - {reason}" for reason in self.reasons) or " the lock names no source for it."


@declare
class ModelsFailed(ModelError):
    """Raised when some models of a lock cannot be pulled or do not verify; the others are in place."""

    template = "{count} of {total} models failed.{listed}"
    failures: Sequence[ModelError]
    total: int

    @property
    def count(self) -> int:
        """Return how many models failed."""
        return len(self.failures)

    @property
    def listed(self) -> str:
        """Return each failure's message, on its own line."""
        return "".join(f"\n{failure.message}" for failure in self.failures)


@declare
class DiskTooSmall(ModelError):
    """Raised when there is not enough free space for what has to be written."""

    template = (
        "{folder} needs {needed} and has {free} free; free some space (comfypin models gc), or take a larger volume."
    )
    folder: Path
    needed_bytes: int
    free_bytes: int

    @property
    def needed(self) -> str:
        """Return the needed space."""
        return format_size(self.needed_bytes)

    @property
    def free(self) -> str:
        """Return the free space."""
        return format_size(self.free_bytes)


@declare
class TargetRefused(ModelError):
    """Raised when a pin's target_path is not a path where a model may be put."""

    template = "The model {name} may not be put at {target!r}: {reason}."
    name: str
    target: str
    reason: str


@declare
class PickleRefused(ModelError):
    """Raised for a pickle, which can run code when it is loaded, if its pin does not allow that."""

    template = (
        "The model {name} ({target}) is refused: {reason}. A pickle can run code when it is loaded; "
        'use a .safetensors file, or set "allow_pickle": true at this pin if you trust it.'
    )
    name: str
    target: str
    reason: str


@declare
class NotSafetensors(ModelError):
    """Raised when a file is called .safetensors and is something else."""

    template = "The model {name} ({target}) is not a safetensors file: {reason}. Check its source."
    name: str
    target: str
    reason: str


@declare
class ModelDiffers(ModelError):
    """Raised when a model is missing, has the wrong bytes, or cannot be verified."""

    template = "The model {name} ({target}) {reason}."
    name: str
    target: str
    reason: str


@declare
class StoreFailed(ModelError):
    """Raised when the file system refuses something that the store needs."""

    template = "{path}: {reason}; the models' folder must be writable and healthy."
    path: str
    reason: str


@declare
class JobModelUnusable(ModelError):
    """Raised when a model that a job names cannot be used; `field` is what the job calls it: `models[0].source`."""

    template = "`{field}`: {reason}."
    field: str
    reason: str


@declare
class JobModelsRefused(ModelError):
    """Raised for a job that names models on a server that takes none."""

    template = "`models`: this server takes no models from jobs; use those of the release {release}."
    release: str
