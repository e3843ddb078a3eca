"""Object stores: buckets and folders by their addresses, and stores of env packs."""

from functools import lru_cache
from typing import TYPE_CHECKING

from comfypin.wiring.network import http_transport

if TYPE_CHECKING:
    from pathlib import Path

    from comfypin.env.pack.store import PackStore
    from comfypin.queue.nats.bodies import Depot
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


def open_depot(settings: "Settings") -> "Depot":
    """Return where a fleet keeps what is too large for its queue: the bucket of its outputs, else its servers.

    Raises `ConfigError`; the bucket itself is not asked yet.
    """
    from functools import cache

    from comfypin.http.client import HttpClient
    from comfypin.queue.nats.bucket_depot import BucketDepot
    from comfypin.queue.nats.server_depot import RemoteBodies
    from comfypin.storage.registry import KINDS, first_configured_kind

    kind = KINDS.get(first_configured_kind(settings.variables) or "")
    if kind is None:
        return RemoteBodies(HttpClient(transport=http_transport(settings, timeout_s=60.0)))
    bucket_settings = kind.read_settings(settings.variables)
    return BucketDepot(cache(lambda: kind.open_store(bucket_settings)), prefix=bucket_settings.prefix)


def open_server_depot(settings: "Settings", state_folder: "Path", own_url: str | None) -> "Depot":
    """Return the depot of a server: without a bucket its own folder, if others can reach it. Raises `JobsUnusable`."""
    import secrets

    from comfypin.atomic_files import write_atomically
    from comfypin.http.client import HttpClient
    from comfypin.machine_errors import reason_of
    from comfypin.queue.errors import JobsUnusable
    from comfypin.queue.nats.server_depot import RemoteBodies, ServerBodies

    depot = open_depot(settings)
    if own_url is None or not isinstance(depot, RemoteBodies):
        return depot
    secret_path = state_folder / "bodies.key"
    try:
        # Addresses that were given out must be right after a restart, too.
        if not secret_path.is_file():
            write_atomically(secret_path, secrets.token_bytes(32), mode=0o600)
        secret = secret_path.read_bytes()
    except OSError as exc:
        raise JobsUnusable(path=str(secret_path), reason=reason_of(exc)) from exc
    client = HttpClient(transport=http_transport(settings, timeout_s=60.0))
    bodies = ServerBodies(client, state_folder / "bodies", own_url=own_url, secret=secret)
    bodies.sweep_leftovers()
    return bodies


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
