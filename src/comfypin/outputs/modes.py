"""Where outputs can go, by name: `--output`, OUTPUT_MODE and a job's `output.mode`."""

from collections.abc import Mapping
from typing import TypeAlias

from comfypin.errors import ConfigError
from comfypin.settings.variables import Variables
from comfypin.storage.registry import KINDS

OutputMode: TypeAlias = str
"""`base64`, `file`, or the name of a kind of bucket (`comfypin.storage.registry`)."""
OUTPUT_MODES: tuple[OutputMode, ...] = ("base64", *KINDS, "file")
DEFAULT_MODE: OutputMode = "gcs"


def named_mode(environ: Mapping[str, str]) -> OutputMode | None:
    """Return the mode that OUTPUT_MODE names, None if it is unset. Raises `ConfigError`."""
    text = Variables(environ).text("OUTPUT_MODE")
    if text is None or text.lower() in OUTPUT_MODES:
        return None if text is None else text.lower()
    raise ConfigError(
        f"OUTPUT_MODE is {text!r}; it must be one of {', '.join(OUTPUT_MODES)}.", variable="OUTPUT_MODE", value=text
    )
