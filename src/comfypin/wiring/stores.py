"""Object stores: buckets and folders by their addresses, and stores of env packs."""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfypin.env.pack.store import PackStore
    from comfypin.settings.environment import Settings
    from comfypin.storage.interface import ObjectStore


# A client is costly to make, and holds the connections of its bucket.
@lru_cache
def open_bucket(settings: "Settings", scheme: str, bucket: str, prefix: str = "") -> "ObjectStore":
    """Return a bucket, or the part of it below a prefix, with the environment's endpoint and keys."""
    from comfypin.storage import registry

    return registry.open_bucket(scheme, bucket, prefix, settings.variables)


def open_store(address: str, settings: "Settings") -> "ObjectStore":
    """Return the store at an address: `scheme://bucket/prefix`, or a folder. Raises `UsageError`."""
    from comfypin.storage.local import LocalStore
    from comfypin.storage.registry import StoreAddress

    parsed_address = StoreAddress.parse(address)
    if parsed_address.folder is not None:
        # The folder belongs to the user: no files of metadata beside theirs.
        return LocalStore(parsed_address.folder, sidecars=False)
    return open_bucket(settings, parsed_address.scheme, parsed_address.bucket, parsed_address.prefix)


def open_pack_store(address: str, settings: "Settings") -> "PackStore":
    """Return the store of env packs at an address: a bucket or a folder. Raises `UsageError`."""
    from comfypin.env.pack.store import BucketPackStore, FolderPackStore
    from comfypin.storage.registry import StoreAddress

    folder = StoreAddress.parse(address).folder
    return BucketPackStore(open_store(address, settings)) if folder is None else FolderPackStore(folder)
