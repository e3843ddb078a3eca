"""The settings of a fleet: where its queue is, how to log in there, and the key that seals the secrets of jobs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.settings.variables import Variables


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """Says how the queue is reached. Its repr shows no login and no key.

    `queue` is COMFYPIN_QUEUE, the default of --queue. At most one login is set: `token` is COMFYPIN_NATS_TOKEN,
    `credentials` a file (COMFYPIN_NATS_CREDS), `nkey` a seed file (COMFYPIN_NATS_NKEY), or `user` and `password`
    (COMFYPIN_NATS_USER, COMFYPIN_NATS_PASSWORD). `ca`, `certificate` and `certificate_key` are files for TLS. Fields
    with `_text` are what the files hold, for containers that get variables only (COMFYPIN_NATS_CREDS_DATA, ...).
    `seal` is COMFYPIN_FLEET_KEY: 32 bytes in base64.
    """

    queue: str | None = None
    token: str | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    credentials: Path | None = None
    credentials_text: str | None = field(default=None, repr=False)
    nkey: Path | None = None
    nkey_text: str | None = field(default=None, repr=False)
    ca: Path | None = None
    ca_text: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    certificate_key: Path | None = None
    seal: str | None = field(default=None, repr=False)

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "FleetSettings":
        """Read the variables; empty ones count as unset. Raises `SettingInvalid`."""
        variables = Variables(environment)
        return cls(
            queue=variables.read_text("COMFYPIN_QUEUE"),
            token=variables.read_text("COMFYPIN_NATS_TOKEN"),
            user=variables.read_text("COMFYPIN_NATS_USER"),
            password=variables.read_text("COMFYPIN_NATS_PASSWORD"),
            credentials=variables.read_file_path("COMFYPIN_NATS_CREDS"),
            credentials_text=variables.read_text("COMFYPIN_NATS_CREDS_DATA"),
            nkey=variables.read_file_path("COMFYPIN_NATS_NKEY"),
            nkey_text=variables.read_text("COMFYPIN_NATS_NKEY_DATA"),
            ca=variables.read_file_path("COMFYPIN_NATS_CA"),
            ca_text=variables.read_text("COMFYPIN_NATS_CA_DATA"),
            certificate=variables.read_file_path("COMFYPIN_NATS_CERT"),
            certificate_key=variables.read_file_path("COMFYPIN_NATS_CERT_KEY"),
            seal=variables.read_text("COMFYPIN_FLEET_KEY"),
        )
