"""The network as the environment describes it: proxies and the HTTP transport."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfypin.http.client import HttpTransport
    from comfypin.http.proxies import Proxies
    from comfypin.settings.environment import Settings


def http_proxies(settings: "Settings") -> "Proxies":
    """Return the proxies that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name."""
    from comfypin.http.proxies import Proxies

    return Proxies.from_variables(settings.variables)


def http_transport(settings: "Settings", *, timeout_s: float = 30.0) -> "HttpTransport":
    """Return the transport of our HTTP clients: the environment's proxies, and a timeout."""
    from comfypin.http.client import HttpTransport

    return HttpTransport(proxies=http_proxies(settings), timeout_s=timeout_s)
