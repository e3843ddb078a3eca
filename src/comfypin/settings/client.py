"""The settings of commands that send jobs to a server elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from comfypin.settings.variables import Variables


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Where jobs are sent. The token is in no repr.

    `server` is COMFYPIN_SERVER, for commands without --server; `token` COMFYPIN_TOKEN, the one that `comfypin serve`
    has under the same name.
    """

    server: str | None = None
    token: str | None = field(default=None, repr=False)

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "ClientSettings":
        """Read the variables; empty ones count as unset. Raises `ConfigError`."""
        variables = Variables(environment)
        # The token goes into a header, where a pasted line break would do harm.
        return cls(server=variables.read_url("COMFYPIN_SERVER"), token=variables.read_header("COMFYPIN_TOKEN"))
