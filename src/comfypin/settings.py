"""The only reader of the environment: variables in, frozen settings out, with the documented names and defaults."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from comfypin.errors import ConfigError

OutputMode: TypeAlias = Literal["base64", "gcs", "s3", "file"]
OUTPUT_MODES: tuple[OutputMode, ...] = get_args(OutputMode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says, parsed once. The documented variables are listed in docs/environment.md."""

    comfy_home: Path
    models_dir: Path
    lock_path: Path | None
    version_name: str | None
    output_mode: OutputMode

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the variables; empty ones count as unset. Raises `ConfigError` naming the variable that is wrong."""

        def text(name: str) -> str | None:
            return environ.get(name, "").strip() or None

        comfy_home = Path(text("COMFY_HOME") or "/opt/comfy")
        lock_path = text("LOCK_PATH")
        return cls(
            comfy_home=comfy_home,
            models_dir=Path(text("MODELS_DIR") or comfy_home / "models"),
            lock_path=Path(lock_path) if lock_path else None,
            version_name=text("COMFY_VERSION_NAME"),
            output_mode=_output_mode(text("OUTPUT_MODE")),
        )


def _output_mode(text: str | None) -> OutputMode:
    if text is None:
        return "gcs"
    for mode in OUTPUT_MODES:
        if text.lower() == mode:
            return mode
    raise ConfigError(
        f"OUTPUT_MODE is {text!r}; it must be one of {', '.join(OUTPUT_MODES)}.", variable="OUTPUT_MODE", value=text
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunpodSettings:
    """How RunPod is reached. The keys are in no repr, so that no log or traceback shows them.

    `api_key` is RUNPOD_API_KEY; `jobs_url` RUNPOD_ENDPOINT_BASE_URL, as RunPod's own SDK reads it; `api_url` and
    `volumes_url` (with `{dc}`) are for stand-ins; the S3 pair is the volumes' S3 API key of RunPod's console.
    """

    api_key: str | None = field(default=None, repr=False)
    api_url: str = "https://api.runpod.io"
    jobs_url: str = "https://api.runpod.ai/v2"
    volumes_url: str = "https://s3api-{dc}.runpod.io"
    s3_access_key: str | None = field(default=None, repr=False)
    s3_secret_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "RunpodSettings":
        """Read RUNPOD_*; empty variables count as unset."""
        read = {
            "api_key": environ.get("RUNPOD_API_KEY", "").strip(),
            "api_url": environ.get("RUNPOD_API_URL", "").strip().rstrip("/"),
            "jobs_url": environ.get("RUNPOD_ENDPOINT_BASE_URL", "").strip().rstrip("/"),
            "volumes_url": environ.get("RUNPOD_S3_URL", "").strip().rstrip("/"),
            "s3_access_key": environ.get("RUNPOD_S3_ACCESS_KEY", "").strip(),
            "s3_secret_key": environ.get("RUNPOD_S3_SECRET_KEY", "").strip(),
        }
        return cls(**{name: value for name, value in read.items() if value})


def named_variables(names: Iterable[str], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that a file names (registry credentials), those that are set. Secrets: never printed."""
    return {name: environ[name] for name in names if environ.get(name)}
