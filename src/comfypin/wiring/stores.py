"""Bytes by key: buckets and folders by their addresses, shelves of env packs."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.env.shelf import Shelf
    from comfypin.objects.interface import ObjectStore


@lru_cache
def open_bucket(scheme: str, bucket: str, prefix: str = "") -> "ObjectStore":
    """A bucket by its name, or the part of it below a prefix, with the environment's endpoint and keys."""
    from comfypin.objects.config import GcsConfig, S3Config
    from comfypin.settings import Settings

    environ = Settings.from_environment().environ
    if scheme == "gs":
        from comfypin.objects.gcs import GcsStore

        return GcsStore(replace(GcsConfig.from_variables(environ), bucket=bucket), prefix=prefix)
    from comfypin.objects.s3 import S3Store

    return S3Store(replace(S3Config.from_variables(environ), bucket=bucket), prefix=prefix)


def open_store(address: str) -> "ObjectStore":
    """A store by its address: `gs://bucket/prefix`, `s3://bucket/prefix`, or a folder. Raises `UsageError`."""
    from comfypin.objects.keys import clean_prefix

    scheme, separator, rest = address.partition("://")
    if not separator or scheme == "file":
        from comfypin.objects.directory import DirectoryStore

        return DirectoryStore(Path(rest if separator else address).absolute(), sidecars=False)
    bucket, _, prefix = rest.partition("/")
    if scheme not in ("gs", "s3") or not bucket:
        raise UsageError(f"{address} is no place for objects; write gs://bucket/prefix, s3://bucket/prefix or DIR.")
    return open_bucket(scheme, bucket, clean_prefix(prefix))


def open_shelf(address: str) -> "Shelf":
    """Where env packs are kept: a folder, or a bucket by its address. Raises `UsageError`."""
    from comfypin.env.shelf import BucketShelf, FolderShelf

    scheme, separator, rest = address.partition("://")
    if not separator or scheme == "file":
        return FolderShelf(Path(rest if separator else address).absolute())
    return BucketShelf(open_store(address))
