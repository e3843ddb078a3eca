"""The interface of every object store: bytes by key, in five methods (synchronous; callers bring the threads)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from comfypin.atomic_files import FileStamp
from comfypin.digest import Digest

DEFAULT_PREFIX = "comfy/outputs"
DEFAULT_RETRIES = 3
LONGEST_SIGNED_URL_S = 7 * 24 * 3600  # of GCS, of S3 and of Azure


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketSettings:
    """Holds what is set for every kind of bucket; each kind adds its own endpoint and credentials.

    Outputs' keys begin with `prefix`. With `validate` the bucket is checked before the first job. With
    `signed_url_ttl_s`, outputs get signed URLs that are valid for that many seconds.
    """

    bucket: str | None = None
    prefix: str = DEFAULT_PREFIX
    retries: int = DEFAULT_RETRIES
    validate: bool = True
    signed_url_ttl_s: int = 0

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> Self:
        """Read this kind's variables. Raises `ConfigError`."""
        raise NotImplementedError

    @classmethod
    def names_bucket(cls, environment: Mapping[str, str]) -> bool:
        """Return whether the variables name a bucket of this kind. Keys are ignored: they may belong to another kind.

        Raises `SettingInvalid`.
        """
        raise NotImplementedError

    @property
    def public_base(self) -> str | None:
        """Return the URL below which anyone can read the objects, if they are public."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A local file to store: its path, size and digest (known before the upload), type and metadata.

    `stamp`, if there is one, is the file's stamp when it was hashed: while it is the same, the bytes are not read
    twice. `pace`, if there is one, is called with the size of each piece before it is sent, and may sleep to limit the
    rate.
    """

    path: Path
    size_bytes: int
    sha256: Digest
    media_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    stamp: FileStamp | None = None
    pace: Callable[[int], None] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object as the store has it: key, size, the store's address of it (`gs://bucket/key`), our metadata."""

    key: str
    size_bytes: int
    uri: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    etag: str | None = None


class ObjectStore(Protocol):
    """Stores objects under one bucket (or folder). Keys are relative, with `/`; they never escape the store."""

    def put(self, key: str, payload: Payload) -> StoredObject:
        """Store the file under the key, whole or not at all, replacing what was there. Repeatable.

        Returns only after the server's size and checksum match the payload. Raises `StorageError`.
        """

    def head(self, key: str) -> StoredObject | None:
        """Return the object's facts, or None if the key is free. Raises `StorageError`."""

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the object's bytes from `offset`. Raises `StorageError`, `ObjectMissing` if the key is free."""

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """Return a URL that lets anyone read the object for `ttl_s` seconds. Never log it. Raises `StorageError`."""

    def check(self, *, below: str = "") -> None:
        """Raise an error unless the bucket exists and takes objects below a prefix. Skipped if the settings say so.

        Raises `StorageError`, `ConfigError`.
        """


class RemovableStore(ObjectStore, Protocol):
    """A store out of which objects can be taken: what is delivered to users stays, what passes through does not."""

    def remove(self, key: str) -> None:
        """Remove the object; one that is gone already is fine. Raises `StorageError`."""
