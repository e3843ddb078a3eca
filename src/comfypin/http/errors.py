"""What can go wrong with a request: facts that each room puts in its own words."""


class HttpError(Exception):
    """A request without a response.

    `reason` is a clause about the server ("it closed the connection"). `is_transient` says whether trying again may
    help, `was_sent` whether the server may have acted on the request.
    """

    def __init__(self, reason: str, *, is_transient: bool = True, was_sent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_transient = is_transient
        self.was_sent = was_sent


class AddressRefused(HttpError):
    """The address, or one that it redirects to, is not one to ask."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, is_transient=False)


class ProxyFailed(HttpError):
    """The proxy that the environment names cannot be reached, or lets the request not through."""


class RequestDeadlineExceeded(HttpError):
    """The whole did not end in its time, or was cancelled."""

    def __init__(self, reason: str = "it did not end in time") -> None:
        super().__init__(reason, is_transient=False, was_sent=True)
