"""Finds out which API a job server has: by its address, else by asking once."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from comfypin.client.errors import ServerAddressInvalid, ServerUnknown
from comfypin.client.interface import ServerAddress
from comfypin.client.json_client import JsonClient
from comfypin.errors import RemoteError
from comfypin.http.url import HttpUrl, UrlInvalid

RUNPOD_SCHEME = "runpod://"
COMFY_PATH = "/api/v2"
# No job has this id; asking for it changes nothing, and the answer's form shows the API.
_PROBE = "comfypin-asks-what-this-is"
_ENDPOINT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def locate_by_address(given_address: str, jobs_url: str) -> ServerAddress | None:
    """Return the server if its address shows its kind; None if we must ask it. Raises `ServerAddressInvalid`.

    `jobs_url` is where Runpod's endpoints are.
    """
    given_address = given_address.strip().rstrip("/")
    if given_address.startswith(RUNPOD_SCHEME):
        endpoint_id = given_address.removeprefix(RUNPOD_SCHEME)
        if not _ENDPOINT_ID.fullmatch(endpoint_id):
            raise ServerAddressInvalid(address=given_address, reason="an endpoint's id is letters and digits")
        return ServerAddress(kind="runpod", base_url=f"{jobs_url}/{endpoint_id}", named=given_address)
    try:
        parsed = HttpUrl.parse(given_address)
    except UrlInvalid as error:
        reason = "it is not a URL" if "://" not in given_address else error.reason
        raise ServerAddressInvalid(address=_without_login(given_address), reason=reason) from error
    if parsed.login is not None:
        reason = "it holds a user or password; put the token into COMFYPIN_TOKEN"
        raise ServerAddressInvalid(address=parsed.redacted_url, reason=reason)
    if urlsplit(given_address).query or urlsplit(given_address).fragment:
        raise ServerAddressInvalid(address=parsed.redacted_url, reason="an address has no ? and no #")
    base_url = parsed.full_address.rstrip("/")
    if is_below(base_url, jobs_url):
        return ServerAddress(kind="runpod", base_url=base_url, named=base_url)
    if base_url.endswith(COMFY_PATH):
        return ServerAddress(kind="comfy", base_url=base_url, named=base_url)
    return None


def locate_by_asking(base_url: str, client: JsonClient) -> ServerAddress:
    """Return the server at an address that does not tell its kind. Raises `ServerUnknown`, `ConfigError`."""
    health = _ask(client, f"{base_url}/health")
    if isinstance(health, Mapping) and {"jobs", "workers"} <= health.keys():
        # Only `comfypin serve` reports `problems`.
        return ServerAddress(kind="serve" if "problems" in health else "runpod", base_url=base_url, named=base_url)
    answer = _ask(client, f"{base_url}{COMFY_PATH}/jobs/{_PROBE}")
    error = answer.get("error") if isinstance(answer, Mapping) else None
    if isinstance(error, Mapping) and "code" in error:
        return ServerAddress(kind="comfy", base_url=f"{base_url}{COMFY_PATH}", named=base_url)
    raise ServerUnknown(server=base_url, reason="it has neither Runpod's paths (/health) nor Comfy API v2 (/api/v2)")


def is_below(url: str, folder_url: str) -> bool:
    """Return whether a URL is one below another."""
    return url.startswith(f"{folder_url.rstrip('/')}/")


def _ask(client: JsonClient, url: str) -> object:
    """Return what a server answers, None if that is not JSON. Raises `ServerUnreachable`, `ConfigError`."""
    try:
        return client.ask("GET", url).document
    except ServerUnknown as unknown:
        if "redirects" in unknown.reason:
            raise
        return None
    except RemoteError as error:
        if getattr(error, "status", None) is None:
            raise
        return None


def _without_login(location_text: str) -> str:
    scheme, separator, rest = location_text.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else location_text
