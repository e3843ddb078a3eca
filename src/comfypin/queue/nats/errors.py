"""Failures of a fleet's queue: the server of messages cannot be reached, or is not one that keeps jobs safe."""

from comfypin.errors import ComfypinError, ConfigError, EngineError, RemoteError, StorageError, UsageError, declare


@declare
class QueueAddressInvalid(UsageError):
    """--queue is not an address of NATS."""

    template = (
        "The queue {shown} is not an address such as nats://host:4222 or tls://host:4222 (several with commas); "
        "logins go into variables (COMFYPIN_NATS_TOKEN, COMFYPIN_NATS_CREDS, COMFYPIN_NATS_NKEY), not into addresses."
    )
    _address: str

    @property
    def shown(self) -> str:
        """Return the address without what stands before its @."""
        return repr(self._address.rpartition("@")[2][:200])


@declare
class QueueUnreachable(RemoteError):
    """No server of the queue answers."""

    template = "The queue at {servers} cannot be reached: {reason}; check the address, and that NATS runs there."
    servers: str
    reason: str


@declare
class QueueLoginRefused(RemoteError):
    """The servers of the queue let nobody in without a login that they know."""

    template = (
        "The queue at {servers} lets us in with a login only, and {reason}: set COMFYPIN_NATS_USER and "
        "COMFYPIN_NATS_PASSWORD to one that it knows (or COMFYPIN_NATS_TOKEN, COMFYPIN_NATS_CREDS, COMFYPIN_NATS_NKEY)."
    )
    servers: str
    reason: str


@declare
class QueueUnfit(ConfigError):
    """The server of the queue cannot keep jobs as they must be kept."""

    template = "The queue at {servers} cannot be used: {reason}."
    servers: str
    reason: str


class FleetKeyInvalid(ConfigError):
    """COMFYPIN_FLEET_KEY is not a key."""

    def __init__(self) -> None:
        super().__init__(
            "COMFYPIN_FLEET_KEY must be 32 bytes in base64; make one with: "
            "python3 -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'.",
            variable="COMFYPIN_FLEET_KEY",
        )


class JobSecretsRefused(ComfypinError):
    """A job came with secrets, and the fleet has no key to seal them with. Clients read this."""

    def __init__(self) -> None:
        super().__init__(
            "The job holds secrets (keys, logins or signed addresses), and this fleet has no key to seal them with: "
            "send it without them, or have COMFYPIN_FLEET_KEY set on the servers and workers."
        )


class SealBroken(ConfigError):
    """What was sealed cannot be opened."""

    def __init__(self) -> None:
        super().__init__(
            "A sealed text of a job cannot be opened: COMFYPIN_FLEET_KEY is unset here, or is not the key of the "
            "server that took the job."
        )


@declare
class BodyTooLarge(ComfypinError):
    """A job's input or result is too large for the queue, and there is nowhere else to put it. Clients read this."""

    template = (
        "The job's data are {size} bytes, more than the {most} that the queue takes for one job, and no bucket is set "
        "for larger ones: send inputs by address, or have a bucket set on servers and workers, or a "
        "--body-url on servers."
    )
    size: int
    most: int


@declare
class BodyOutOfReach(StorageError):
    """Whoever keeps a large input or result does not give it, or take it. Clients read this."""

    template = "The job's data, which {server} keeps, are out of reach: {reason}."
    server: str
    reason: str


@declare
class CatalogueUnknown(EngineError):
    """No worker has served the release yet, so nobody knows which nodes it has. Clients read this."""

    template = "No worker has served {release} yet, so its nodes are not known here; try again when one runs."
    command_hint = "Start one: comfypin worker --queue ADDRESS --release {release}."
    release: str


@declare
class LeaseTaken(ComfypinError):
    """Somebody else does what only one may do at a time."""

    template = "Another process does this for the fleet now ({what}); it is free again ten seconds after that one ends."
    what: str
