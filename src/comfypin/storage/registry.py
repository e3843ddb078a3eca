"""Every kind of store, by the scheme of its addresses: `s3://bucket/prefix`, `gs://bucket/prefix`, `file:///folder`.

A new kind of bucket is one module and one line of `KINDS`. The module offers what `StoreModule` says and imports its
client library only in `open_store`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from comfypin.errors import UsageError
from comfypin.storage.errors import SdkMissing
from comfypin.storage.interface import BucketSettings, ObjectStore
from comfypin.storage.keys import clean_prefix


class StoreModule(Protocol):
    """What a module of buckets offers: the class of its settings, and a store made of them."""

    Settings: type[BucketSettings]

    def open_store(self, settings: Any, *, prefix: str = "") -> ObjectStore:
        """The bucket that the settings name, or the part of it below a prefix. Raises `ConfigError`, `StorageError`.

        An `ImportError` means that the client library is not installed.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreKind:
    """A kind of bucket.

    `name` is its word in `--output`, OUTPUT_MODE and `output.mode`, the extra that installs its client library (whose
    module is `sdk`), and its module here.
    """

    name: str
    scheme: str
    title: str
    sdk: str
    aliases: tuple[str, ...] = ()
    docs: str = "docs/storage.md"

    @property
    def result_type(self) -> str:
        """What a job's result calls an output that lies there."""
        return f"{self.name}_url"

    def settings(self, environ: Mapping[str, str]) -> BucketSettings:
        """What the variables say of this kind. Raises `ConfigError`."""
        return self._load().Settings.from_variables(environ)

    def is_configured(self, environ: Mapping[str, str]) -> bool:
        """Whether the variables name a bucket of this kind. Raises `SettingInvalid`."""
        return self._load().Settings.names_bucket(environ)

    def open(self, settings: BucketSettings, *, prefix: str = "") -> ObjectStore:
        """Open the bucket that the settings name. Raises `SdkMissing`, `ConfigError`, `StorageError`."""
        try:
            return self._load().open_store(settings, prefix=prefix)
        except ImportError as exc:
            raise SdkMissing(store=self.title, extra=self.name) from exc

    def _load(self) -> StoreModule:
        return cast("StoreModule", import_module(f"comfypin.storage.{self.name}"))


# In this order they are looked at when the variables name several buckets, and no output mode is chosen.
_ALL = (
    StoreKind(name="gcs", scheme="gs", title="Google Cloud Storage", sdk="google.cloud.storage"),
    StoreKind(name="s3", scheme="s3", title="S3", sdk="boto3", aliases=("r2",)),
    StoreKind(name="azure", scheme="az", title="Azure Blob Storage", sdk="azure.storage.blob"),
)
KINDS: Mapping[str, StoreKind] = {kind.name: kind for kind in _ALL}
SCHEMES: Mapping[str, StoreKind] = {scheme: kind for kind in _ALL for scheme in (kind.scheme, *kind.aliases)}


def kind_of(scheme: str) -> StoreKind:
    """The kind of bucket with this scheme. Raises `UsageError`."""
    try:
        return SCHEMES[scheme.lower()]
    except KeyError:
        raise UsageError(f"{scheme}:// is no scheme of buckets; there are {_listed_schemes()}.") from None


def configured_bucket(environ: Mapping[str, str]) -> str | None:
    """The name of the first kind for which the variables name a bucket. Raises `SettingInvalid`."""
    return next((kind.name for kind in KINDS.values() if kind.is_configured(environ)), None)


def open_bucket(scheme: str, bucket: str, prefix: str, environ: Mapping[str, str]) -> ObjectStore:
    """A bucket by its name, with the endpoint and credentials of the variables. Raises as `StoreKind.open` does."""
    kind = kind_of(scheme)
    return kind.open(replace(kind.settings(environ), bucket=bucket), prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a store is, as users write it: a folder, or a bucket and what keys begin with there."""

    folder: Path | None = None
    scheme: str = ""
    bucket: str = ""
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """`scheme://bucket/prefix`, `file:///folder` or `folder`. Raises `UsageError`, `KeyInvalid`."""
        scheme, separator, rest = text.partition("://")
        if not separator or scheme.lower() == "file":
            return cls(folder=Path(rest if separator else text).absolute())
        bucket, _, prefix = rest.partition("/")
        if scheme.lower() not in SCHEMES or not bucket:
            raise UsageError(f"{text} is no place for objects; write {_listed_schemes('bucket/prefix')} or DIR.")
        return cls(scheme=scheme.lower(), bucket=bucket, prefix=clean_prefix(prefix))


def _listed_schemes(rest: str = "") -> str:
    *others, last = (f"{kind.scheme}://{rest}" for kind in KINDS.values())
    return f"{', '.join(others)} and {last}" if not rest else ", ".join([*others, last])
