"""Failures of serving over HTTP: the address, the token, or a request that cannot be read."""

from comfypin.errors import ComfypinError, ConfigError, declare
from comfypin.plurals import format_limit


class ServerUnsafe(ConfigError):
    """The server would be open to everybody."""


@declare
class PortUnusable(ConfigError):
    """The server cannot listen on the address that it was given."""

    template = "The server cannot listen on {address}: {reason}. Choose another port: --port or PORT."
    address: str
    reason: str


class NotReady(ComfypinError):
    """The engine is still starting."""

    def __init__(self) -> None:
        super().__init__("The engine is still starting; try again in a moment (/ping answers 200 once it is ready).")


class HistoryNotRead(ComfypinError):
    """A server of a large fleet has not read all jobs yet."""

    def __init__(self) -> None:
        super().__init__(
            "This server has just started and still reads the fleet's jobs: it takes jobs, tells of each by /status, "
            "and cancels them; try anything else again in a moment."
        )


@declare
class RequestInvalid(ComfypinError):
    """A request is not what /openapi.json describes."""

    template = "The request is invalid: {reason}."
    reason: str


@declare
class RequestTooComplex(ComfypinError):
    """A request's JSON would keep everybody else waiting while it is read."""

    template = "The request's JSON has more than {most} {what}; send large data as base64 text or by address."
    what: str
    most: int


@declare
class TooManyDownloads(ComfypinError):
    """As many models are being downloaded as the server takes at once."""

    template = "{running} models are being downloaded, which is as many as this server takes at once; try again later."
    running: int


@declare
class BodyTooBig(ComfypinError):
    """A request's body is over the server's limit."""

    template = "The request is larger than {limit}, the limit of this server; send inputs by address instead."
    limit_bytes: int

    @property
    def limit(self) -> str:
        """Return the limit."""
        return format_limit(self.limit_bytes)


@declare
class TooManyFollowers(ComfypinError):
    """As many event streams are open as there may be."""

    template = "{following} event streams are open, as many as there may be; ask for GET /jobs, or try again later."
    following: int
