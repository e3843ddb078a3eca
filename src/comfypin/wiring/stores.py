"""Object stores: buckets and folders by their addresses, and stores of env packs."""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfypin.env.pack.store import PackStore
    from comfypin.queue.nats.bucket_depot import BucketDepot
    from comfypin.server.comfy_api.own_bucket import OwnBucket
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


def open_depot(settings: "Settings") -> "BucketDepot | None":
    """Return where a fleet keeps what is too large for its queue: the bucket of its outputs, or None without one.

    Raises `ConfigError`; the bucket itself is not asked yet.
    """
    from functools import cache

    from comfypin.queue.nats.bucket_depot import BucketDepot
    from comfypin.storage.registry import KINDS, first_configured_kind

    kind = KINDS.get(first_configured_kind(settings.variables) or "")
    if kind is None:
        return None
    bucket_settings = kind.read_settings(settings.variables)
    return BucketDepot(cache(lambda: kind.open_store(bucket_settings)), prefix=bucket_settings.prefix)


def own_bucket(settings: "Settings") -> "OwnBucket | None":
    """Return the bucket that this machine's outputs go to, to be read from, or None if none is configured.

    Raises `ConfigError`; the bucket itself is not asked yet.
    """
    from functools import cache

    from comfypin.outputs.bucket import OutputLinks
    from comfypin.outputs.modes import named_mode
    from comfypin.server.comfy_api.own_bucket import OwnBucket
    from comfypin.storage.registry import KINDS, first_configured_kind

    mode = named_mode(settings.variables)
    kind = KINDS.get(mode or "") or KINDS.get(first_configured_kind(settings.variables) or "")
    if kind is None or not kind.is_configured(settings.variables):
        return None
    bucket_settings = kind.read_settings(settings.variables)

    @cache
    def open_reader() -> "ObjectStore":
        return kind.open_store(bucket_settings)

    links = OutputLinks(signed_ttl_s=bucket_settings.signed_url_ttl_s, public_base_url=bucket_settings.public_base)
    return OwnBucket(
        addresses=tuple(f"{scheme}://{bucket_settings.bucket}/" for scheme in (kind.scheme, *kind.aliases)),
        prefix=bucket_settings.prefix,
        open_reader=open_reader,
        url_of_key=lambda key: links.make_url(open_reader(), key),
    )
