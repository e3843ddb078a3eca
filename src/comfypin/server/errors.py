"""Failures of serving over HTTP: the address, the token, or a request that cannot be read."""

from comfypin.errors import ComfypinError, ConfigError


class ServerUnsafe(ConfigError):
    """The server would be open to everybody."""


class PortUnusable(ConfigError):
    """The server cannot listen where it was told to."""

    def __init__(self, *, address: str, reason: str) -> None:
        super().__init__(f"The server cannot listen on {address}: {reason}. Choose another --port or PORT.")


class RequestInvalid(ComfypinError):
    """A request that is not what /openapi.json describes."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The request cannot be taken: {reason}.")


class RequestTooComplex(ComfypinError):
    """A request's JSON would keep everybody else waiting while it is read."""

    def __init__(self, *, what: str, most: int) -> None:
        super().__init__(
            f"The request's JSON has more than {most} {what}; send large data as base64 text or by address.",
            what=what,
            most=most,
        )
