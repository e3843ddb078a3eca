"""The settings of the HTTP server: how it is reached, and its secrets."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from comfypin.errors import ConfigError
from comfypin.settings.variables import Variables

_SYMMETRICAL = "RUNPOD_TCP_PORT_"
# Above it are the numbers by which a pod asks for a port that is the same inside and outside.
_MOST_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Says how a server is reached. The token and secret are in no repr.

    `token` is COMFYPIN_TOKEN; `webhook_secret` COMFYPIN_WEBHOOK_SECRET; `public_url` COMFYPIN_PUBLIC_URL, else Runpod's
    load balancer of RUNPOD_ENDPOINT_ID, else its proxy of RUNPOD_POD_ID; `port` PORT, and `health_port` PORT_HEALTH if
    a load balancer asks another one; `metrics_port` is COMFYPIN_METRICS_PORT, for a worker, which has no server of its
    own. `body_url` is COMFYPIN_BODY_URL, where workers of a fleet reach this server itself. `symmetrical_ports` are the
    ports that Runpod gave, by the numbers (above 65535) that a pod asked for.
    """

    token: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    public_url: str | None = None
    body_url: str | None = None
    pod_id: str | None = None
    endpoint_id: str | None = None
    port: int | None = None
    health_port: int | None = None
    metrics_port: int | None = None
    symmetrical_ports: Mapping[int, int] = field(default_factory=dict)

    def listening_port(self, port: int) -> int:
        """Return the port to listen on: Runpod gives symmetrical ports in RUNPOD_TCP_PORT_<number>.

        Raises `ConfigError`.
        """
        # The pod asked for 70000, say, and Runpod gave it a real port instead.
        if port > _MOST_PORT and port in self.symmetrical_ports:
            return self.symmetrical_ports[port]
        if not 0 <= port <= _MOST_PORT:
            variable_name = f"{_SYMMETRICAL}{port}"
            raise ConfigError(
                f"{port} is not a port, and {variable_name} does not say which port Runpod gave for it.",
                variable=variable_name,
            )
        return port

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "ServerSettings":
        """Read the variables; empty ones count as unset. Raises `SettingInvalid`."""
        variables = Variables(environment)
        return cls(
            token=variables.read_text("COMFYPIN_TOKEN"),
            webhook_secret=variables.read_text("COMFYPIN_WEBHOOK_SECRET"),
            public_url=variables.read_url("COMFYPIN_PUBLIC_URL"),
            body_url=variables.read_url("COMFYPIN_BODY_URL"),
            pod_id=variables.read_text("RUNPOD_POD_ID"),
            endpoint_id=variables.read_text("RUNPOD_ENDPOINT_ID"),
            port=variables.read_port("PORT"),
            health_port=variables.read_port("PORT_HEALTH"),
            metrics_port=variables.read_port("COMFYPIN_METRICS_PORT"),
            symmetrical_ports=_symmetrical_ports(variables),
        )


def _symmetrical_ports(variables: Variables) -> dict[int, int]:
    number_texts = {
        variable_name: variable_name.removeprefix(_SYMMETRICAL)
        for variable_name in variables
        if variable_name.startswith(_SYMMETRICAL)
    }
    given_ports = {
        int(number): variables.read_port(variable_name)
        for variable_name, number in number_texts.items()
        if number.isascii() and number.isdigit()
    }
    return {
        number: given_port
        for number, given_port in given_ports.items()
        if given_port is not None and number > _MOST_PORT
    }
