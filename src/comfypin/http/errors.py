"""Failures of HTTP requests: facts that each room puts in its own words."""


class HttpError(Exception):
    """Raised if a request gets no usable response.

    `reason` is a clause about the server ("it closed the connection"). `is_transient` says whether a retry may help,
    `was_sent` whether the server may have acted on the request.
    """

    def __init__(self, reason: str, *, is_transient: bool = True, was_sent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_transient = is_transient
        self.was_sent = was_sent


class AddressRefused(HttpError):
    """Raised if the URL, or one that it redirects to, must not be requested."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, is_transient=False)


class ProxyFailed(HttpError):
    """Raised if the proxy from the environment cannot be reached, or does not let the request through."""


class RequestDeadlineExceeded(HttpError):
    """Raised if the request did not end before its deadline, or was cancelled."""

    def __init__(self, reason: str = "it did not end in time") -> None:
        # A retry would not end in time either.
        super().__init__(reason, is_transient=False, was_sent=True)
