"""The settings of a container that is started without a command."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from comfypin.settings.variables import Variables

# No platform waits longer than an hour for a container to end.
_LONGEST_GRACE_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrySettings:
    """Says what a container does if no command is given; docs/images.md lists the variables.

    `mode` is COMFYPIN_MODE; `serverless` whether RunPod Serverless started the container; `sync_to` COMFYPIN_SYNC_TO;
    `output_dir` COMFYPIN_OUTPUT_DIR; `page_listen` COMFYPIN_PAGE_LISTEN (`off`: no page); `grace_s` COMFYPIN_GRACE.
    """

    mode: str | None = None
    serverless: bool = False
    sync_to: str | None = None
    output_dir: Path | None = None
    page_listen: str = "127.0.0.1"
    grace_s: float = 25.0

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "EntrySettings":
        """Read the variables; empty ones count as unset. Raises `SettingInvalid`."""
        variables = Variables(environment)
        return cls(
            mode=variables.read_word("COMFYPIN_MODE", ("worker", "pod")),
            # RunPod sets these on Serverless workers, not on pods.
            serverless=variables.read_text("RUNPOD_ENDPOINT_ID", "RUNPOD_WEBHOOK_GET_JOB") is not None,
            sync_to=variables.read_text("COMFYPIN_SYNC_TO"),
            output_dir=variables.read_path("COMFYPIN_OUTPUT_DIR"),
            page_listen=variables.read_text("COMFYPIN_PAGE_LISTEN") or "127.0.0.1",
            grace_s=float(variables.read_count("COMFYPIN_GRACE", default=25, maximum=_LONGEST_GRACE_S)),
        )
