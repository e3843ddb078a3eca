"""The settings of a container that is started without a command."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from comfypin.settings.variables import Variables

# No platform waits longer than an hour for a container to end.
_LONGEST_GRACE_S = 3600
# A month; whoever wants longer wants no limit.
_LONGEST_STOP_S = 31 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrySettings:
    """Says what a container does if no command is given; docs/images.md lists the variables.

    `mode` is COMFYPIN_MODE; `serverless` whether Runpod Serverless started the container, and `balanced` whether it did
    so behind a load balancer; `sync_to` COMFYPIN_SYNC_TO; `output_dir` COMFYPIN_OUTPUT_DIR; `page_listen`
    COMFYPIN_PAGE_LISTEN (`off`: no page); `grace_s` COMFYPIN_GRACE; `volume` COMFYPIN_VOLUME, a volume that is mounted
    elsewhere than Runpod's defaults; `stop_after_s` COMFYPIN_STOP_AFTER, when the pod stops itself.
    """

    mode: str | None = None
    serverless: bool = False
    balanced: bool = False
    sync_to: str | None = None
    output_dir: Path | None = None
    page_listen: str = "127.0.0.1"
    grace_s: float = 25.0
    volume: Path | None = None
    stop_after_s: int | None = None

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "EntrySettings":
        """Read the variables; empty ones count as unset. Raises `SettingInvalid`."""
        variables = Variables(environment)
        # Runpod sets the first on every Serverless worker, not on pods; the second is where a queue's jobs are.
        has_endpoint = variables.read_text("RUNPOD_ENDPOINT_ID") is not None
        has_queue = variables.read_text("RUNPOD_WEBHOOK_GET_JOB") is not None
        names_port = variables.read_text("PORT", "PORT_HEALTH") is not None
        return cls(
            mode=variables.read_word("COMFYPIN_MODE", ("worker", "pod", "serve")),
            serverless=has_endpoint or has_queue,
            balanced=has_endpoint and names_port and not has_queue,
            sync_to=variables.read_text("COMFYPIN_SYNC_TO"),
            output_dir=variables.read_path("COMFYPIN_OUTPUT_DIR"),
            page_listen=variables.read_text("COMFYPIN_PAGE_LISTEN") or "127.0.0.1",
            grace_s=float(variables.read_count("COMFYPIN_GRACE", default=25, maximum=_LONGEST_GRACE_S)),
            volume=variables.read_path("COMFYPIN_VOLUME"),
            stop_after_s=variables.read_count("COMFYPIN_STOP_AFTER", default=0, maximum=_LONGEST_STOP_S) or None,
        )
