"""Refuses a job's own bucket at a private address, where a job's inputs may not be either."""

from dataclasses import replace
from urllib.parse import urlsplit

from comfypin.addresses import HostInvalid, HostResolver, HostUnknown, is_public, resolve_host
from comfypin.jobs.errors import JobInvalid
from comfypin.storage.errors import StoreUnreachable
from comfypin.storage.s3_settings import S3Settings

# The same as for every other address in a job.
_RESOLVE_S = 30.0


def require_public_bucket(settings: S3Settings, *, resolver: HostResolver | None = None) -> S3Settings:
    """Return the settings of a job's `s3Config`, bound to the addresses that were found public here.

    Both names by which S3 clients reach a bucket are checked: ENDPOINT/BUCKET and BUCKET.ENDPOINT. Raises
    `JobInvalid` if one leads to a private address, `StoreUnreachable` if the endpoint leads nowhere.
    """
    endpoint_parts = urlsplit(settings.endpoint or "")
    host_name = endpoint_parts.hostname
    if host_name is None:
        return settings
    # The port is needed to resolve a name, and does not change where it leads.
    port_number = endpoint_parts.port or 443
    addresses = _resolve_addresses(host_name, port_number, resolver)
    if not all(
        map(is_public, (*addresses, *_resolve_addresses(f"{settings.bucket}.{host_name}", port_number, resolver)))
    ):
        raise _not_public_error("leads to a private address")
    if settings.proxies.for_address(str(settings.endpoint)) is None:
        if not addresses:
            raise StoreUnreachable(
                store=f"s3://{settings.bucket} at {settings.endpoint}", reason="its name is not known"
            )
        # A name server may say something else the next time it is asked.
        return replace(settings, connect_to=addresses)
    if not addresses:
        raise _not_public_error("is not known here, so the proxy might lead to a private address")
    return settings


def _resolve_addresses(host_name: str, port_number: int, resolver: HostResolver | None) -> tuple[str, ...]:
    try:
        return resolve_host(host_name, port_number, resolver=resolver, within_s=_RESOLVE_S)
    except (HostInvalid, HostUnknown, TimeoutError):
        return ()


def _not_public_error(reason: str) -> JobInvalid:
    way_out = "name an endpoint with a public address, or have the worker or server started with --allow-private-inputs"
    return JobInvalid(findings=[f"s3Config.endpointUrl: it {reason}; {way_out}"])
