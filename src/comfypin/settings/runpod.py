"""The settings of Runpod's APIs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from comfypin.settings.variables import Variables

API_URL = "https://api.runpod.io"
JOBS_URL = "https://api.runpod.ai/v2"
# Each data center has its own endpoint.
VOLUMES_URL = "https://s3api-{dc}.runpod.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunpodSettings:
    """How Runpod is reached. The keys are in no repr, so that no log or traceback shows them.

    `api_key` is RUNPOD_API_KEY; `jobs_url` RUNPOD_ENDPOINT_BASE_URL, as Runpod's own SDK reads it; `api_url` and
    `volumes_url` (with `{dc}`) are for stand-ins; the S3 pair is the volumes' S3 API key of Runpod's console.
    """

    api_key: str | None = field(default=None, repr=False)
    api_url: str = API_URL
    jobs_url: str = JOBS_URL
    volumes_url: str = VOLUMES_URL
    s3_access_key: str | None = field(default=None, repr=False)
    s3_secret_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "RunpodSettings":
        """Read RUNPOD_*; empty variables count as unset. Raises `ConfigError`."""
        variables = Variables(environment)
        return cls(
            # Keys go into headers, where a pasted line break would do harm.
            api_key=variables.read_header("RUNPOD_API_KEY"),
            api_url=variables.read_url("RUNPOD_API_URL") or API_URL,
            jobs_url=variables.read_url("RUNPOD_ENDPOINT_BASE_URL") or JOBS_URL,
            volumes_url=variables.read_url("RUNPOD_S3_URL") or VOLUMES_URL,
            s3_access_key=variables.read_header("RUNPOD_S3_ACCESS_KEY"),
            s3_secret_key=variables.read_text("RUNPOD_S3_SECRET_KEY"),
        )
