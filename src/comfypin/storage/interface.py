"""Bytes by key: what every store of objects does, in five methods (synchronous; callers bring the threads)."""

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
    """What is set for every kind of bucket; each kind adds its own endpoint and credentials.

    `prefix` is what outputs' keys begin with. `validate`: ask the bucket before the first job. With
    `signed_url_ttl_s`, outputs get signed URLs for that many seconds.
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
        """Whether the variables name a bucket of this kind. Keys are not looked at: they may be meant for others.

        Raises `SettingInvalid`.
        """
        raise NotImplementedError

    @property
    def public_base(self) -> str | None:
        """The URL below which anyone can read the objects, if they are public."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A local file to be stored: its path, size and digest (known before the upload), type and metadata.

    `stamp`, where there is one, is the file's as it was hashed: while the file has it, its bytes are not read twice.
    `pace`, where there is one, is told of each piece of bytes before it is sent, and may sleep to bound the rate.
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
    """Objects under one bucket (or folder). Keys are relative, with `/`; they never escape the store."""

    def put(self, key: str, payload: Payload) -> StoredObject:
        """Store the file under the key, whole or not at all, replacing what was there. Repeatable.

        Returns only after the server's size and checksum agree with the payload. Raises `StorageError`.
        """

    def head(self, key: str) -> StoredObject | None:
        """The object's facts, or None where there is none. Raises `StorageError`."""

    def read(self, key: str, *, offset: int = 0) -> Iterator[bytes]:
        """The object's bytes from `offset`, in chunks. Raises `StorageError` (`ObjectMissing` where there is none)."""

    def signed_url(self, key: str, *, ttl_s: int) -> str:
        """An address that lets anyone read the object for `ttl_s` seconds. Never logged. Raises `StorageError`."""

    def check(self, *, below: str = "") -> None:
        """Make sure that the bucket is there and takes objects below a prefix, unless the settings say not to ask.

        Raises `StorageError`, `ConfigError`.
        """
