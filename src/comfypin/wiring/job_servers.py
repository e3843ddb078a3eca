"""Servers of jobs elsewhere: which one is meant, with which token."""

from typing import TYPE_CHECKING

from comfypin.wiring.network import http_transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfypin.client.interface import JobServer
    from comfypin.http.client import HttpClient
    from comfypin.settings.environment import Settings


def open_job_server(
    given_address: str | None, settings: "Settings", *, report: "Callable[[str], None]"
) -> "tuple[JobServer, HttpClient]":
    """Return the server that a flag or COMFYPIN_SERVER names, and the client that fetches its outputs.

    Raises `UsageError` for no or a wrong address, `ConfigError` for a token, `RemoteError` if it must be asked.
    """
    from comfypin.client.comfy_server import ComfyServer
    from comfypin.client.errors import ServerNotNamed, TokenMissing
    from comfypin.client.json_client import JsonClient
    from comfypin.client.locate import locate_by_address, locate_by_asking
    from comfypin.client.runpod_server import RunpodServer
    from comfypin.http.client import Credentials, HttpClient
    from comfypin.http.url import HttpUrl

    given_address = given_address or settings.client.server
    if given_address is None:
        raise ServerNotNamed
    address = locate_by_address(given_address, settings.runpod.jobs_url)
    is_runpod = address is not None and address.kind == "runpod"
    variable = "RUNPOD_API_KEY" if is_runpod else "COMFYPIN_TOKEN"
    token = settings.runpod.api_key if is_runpod else settings.client.token
    if is_runpod and token is None:
        raise TokenMissing(server=given_address, variable=variable)
    base_url = given_address.strip().rstrip("/") if address is None else address.base_url
    target = HttpUrl.parse(base_url)
    credentials = Credentials(tokens={f"{target.scheme}://{target.authority}": token} if token else {})
    http_client = HttpClient(credentials=credentials, transport=http_transport(settings, timeout_s=60.0))
    json_client = JsonClient(
        server=base_url if address is None else address.named,
        client=http_client,
        variable=variable,
        has_token=token is not None,
        report=report,
    )
    address = address or locate_by_asking(base_url, json_client)
    server_class = ComfyServer if address.kind == "comfy" else RunpodServer
    return server_class(address=address, client=json_client), http_client
