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
from comfypin.storage.interface import BucketSettings, ObjectStore, RemovableStore
from comfypin.storage.object_keys import clean_prefix


class StoreModule(Protocol):
    """What a module of buckets offers: the class of its settings, and a function that opens a store from them."""

    Settings: type[BucketSettings]

    def open_store(self, settings: Any, *, prefix: str = "") -> RemovableStore:
        """Open the bucket that the settings name, or a prefix in it. Raises `ConfigError`, `StorageError`.

        Raises `ImportError` if the client library is not installed.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreKind:
    """One kind of bucket.

    `name` is its word in `--output`, OUTPUT_MODE and `output.mode`, the extra that installs its client library (whose
    module is `sdk`), and its module here. In capitals it begins its variables; `other_variables` begin further ones.
    """

    name: str
    scheme: str
    title: str
    sdk: str
    aliases: tuple[str, ...] = ()
    other_variables: tuple[str, ...] = ()
    docs: str = "docs/storage.md"

    @property
    def result_type(self) -> str:
        """Return the `type` of an output in a job's result if it is in such a bucket."""
        return f"{self.name}_url"

    def read_settings(self, environment: Mapping[str, str]) -> BucketSettings:
        """Return this kind's settings from the variables. Raises `ConfigError`."""
        return self._load_module().Settings.from_variables(environment)

    def is_configured(self, environment: Mapping[str, str]) -> bool:
        """Return whether the variables name a bucket of this kind. Raises `SettingInvalid`."""
        return self._load_module().Settings.names_bucket(environment)

    def open_store(self, settings: BucketSettings, *, prefix: str = "") -> RemovableStore:
        """Open the bucket that the settings name. Raises `SdkMissing`, `ConfigError`, `StorageError`."""
        try:
            return self._load_module().open_store(settings, prefix=prefix)
        except ImportError as exception:
            raise SdkMissing(store=self.title, extra=self.name) from exception

    def _load_module(self) -> StoreModule:
        # Loaded when it is needed: client libraries are slow to import.
        return cast("StoreModule", import_module(f"comfypin.storage.{self.name}"))


# If the variables name several buckets and no output mode is chosen, the first in this order is used.
_ALL = (
    StoreKind(name="gcs", scheme="gs", title="Google Cloud Storage", sdk="google.cloud.storage"),
    StoreKind(name="s3", scheme="s3", title="S3", sdk="boto3", aliases=("r2",), other_variables=("BUCKET_", "R2_")),
    StoreKind(name="azure", scheme="az", title="Azure Blob Storage", sdk="azure.storage.blob"),
)
KINDS: Mapping[str, StoreKind] = {kind.name: kind for kind in _ALL}
SCHEMES: Mapping[str, StoreKind] = {scheme: kind for kind in _ALL for scheme in (kind.scheme, *kind.aliases)}


def variable_prefixes() -> tuple[str, ...]:
    """Return what the variables of every kind of store begin with: some of them are secrets."""
    return tuple(prefix for kind in _ALL for prefix in (f"{kind.name.upper()}_", *kind.other_variables))


def find_kind(scheme_name: str) -> StoreKind:
    """Return the kind of bucket with this scheme. Raises `UsageError`."""
    try:
        return SCHEMES[scheme_name.lower()]
    except KeyError:
        raise UsageError(f"{scheme_name}:// is not a kind of bucket; use {_list_schemes()}.") from None


def first_configured_kind(environment: Mapping[str, str]) -> str | None:
    """Return the name of the first kind for which the variables name a bucket. Raises `SettingInvalid`."""
    # Only set variables decide; no bucket is contacted.
    return next((store_kind.name for store_kind in KINDS.values() if store_kind.is_configured(environment)), None)


def open_bucket(scheme_name: str, bucket: str, prefix: str, environment: Mapping[str, str]) -> ObjectStore:
    """Open a bucket by name, with the variables' endpoint and credentials. Raises as `StoreKind.open_store` does."""
    store_kind = find_kind(scheme_name)
    return store_kind.open_store(replace(store_kind.read_settings(environment), bucket=bucket), prefix=prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """A store's address as users write it: a folder, or a bucket and a prefix for keys."""

    folder: Path | None = None
    scheme: str = ""
    bucket: str = ""
    prefix: str = ""

    @classmethod
    def parse(cls, address_text: str) -> "StoreAddress":
        """Parse `scheme://bucket/prefix`, `file:///folder` or `folder`. Raises `UsageError`, `KeyInvalid`."""
        scheme, separator, remainder = address_text.partition("://")
        if not separator or scheme.lower() == "file":
            return cls(folder=Path(remainder if separator else address_text).absolute())
        bucket, _, prefix = remainder.partition("/")
        if scheme.lower() not in SCHEMES or not bucket:
            raise UsageError(
                f"{address_text} is not the address of a store; write {_list_schemes('bucket/prefix')} or DIR."
            )
        return cls(scheme=scheme.lower(), bucket=bucket, prefix=clean_prefix(prefix))


def _list_schemes(remainder: str = "") -> str:
    *others, last = (f"{store_kind.scheme}://{remainder}" for store_kind in KINDS.values())
    return f"{', '.join(others)} or {last}" if not remainder else ", ".join([*others, last])
