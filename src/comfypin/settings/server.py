"""How the HTTP server is reached, and what it keeps secret."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from comfypin.errors import ConfigError
from comfypin.settings.variables import Variables

_SYMMETRICAL = "RUNPOD_TCP_PORT_"
_MOST_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a server is reached. The token and secret are in no repr.

    `token` is COMFYPIN_TOKEN; `webhook_secret` COMFYPIN_WEBHOOK_SECRET; `public_url` COMFYPIN_PUBLIC_URL, else Runpod's
    proxy of RUNPOD_POD_ID; `port` PORT, and `health_port` PORT_HEALTH if a load balancer asks another one;
    `metrics_port` is COMFYPIN_METRICS_PORT, for a worker, which has no server of its own. `symmetrical_ports` are the
    ports that Runpod gave, by the numbers (above 65535) that a pod asked for.
    """

    token: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    public_url: str | None = None
    pod_id: str | None = None
    port: int | None = None
    health_port: int | None = None
    metrics_port: int | None = None
    symmetrical_ports: Mapping[int, int] = field(default_factory=dict)

    def mapped(self, port: int) -> int:
        """Return the port to listen on: Runpod gives symmetrical ports in RUNPOD_TCP_PORT_<number>.

        Raises `ConfigError`.
        """
        if port > _MOST_PORT and port in self.symmetrical_ports:
            return self.symmetrical_ports[port]
        if not 0 <= port <= _MOST_PORT:
            name = f"{_SYMMETRICAL}{port}"
            raise ConfigError(
                f"{port} is no port, and {name} does not say which one RunPod gave for it.", variable=name
            )
        return port

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> "ServerSettings":
        """Read the variables; empty ones count as unset. Raises `SettingInvalid`."""
        env = Variables(environ)
        return cls(
            token=env.text("COMFYPIN_TOKEN"),
            webhook_secret=env.text("COMFYPIN_WEBHOOK_SECRET"),
            public_url=env.url("COMFYPIN_PUBLIC_URL"),
            pod_id=env.text("RUNPOD_POD_ID"),
            port=env.port("PORT"),
            health_port=env.port("PORT_HEALTH"),
            metrics_port=env.port("COMFYPIN_METRICS_PORT"),
            symmetrical_ports=_symmetrical_ports(env),
        )


def _symmetrical_ports(env: Variables) -> dict[int, int]:
    numbers = {name: name.removeprefix(_SYMMETRICAL) for name in env if name.startswith(_SYMMETRICAL)}
    asked = {int(number): env.port(name) for name, number in numbers.items() if number.isascii() and number.isdigit()}
    return {number: given for number, given in asked.items() if given is not None and number > _MOST_PORT}
