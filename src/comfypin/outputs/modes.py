"""The output modes, by name: `--output`, OUTPUT_MODE and a job's `output.mode`."""

from collections.abc import Mapping
from typing import TypeAlias

from comfypin.errors import ConfigError
from comfypin.settings.variables import Variables
from comfypin.storage.registry import KINDS

OutputMode: TypeAlias = str
"""`base64`, `file`, or the name of a kind of bucket (`comfypin.storage.registry`)."""
OUTPUT_MODES: tuple[OutputMode, ...] = ("base64", *KINDS, "file")
DEFAULT_MODE: OutputMode = "gcs"


def named_mode(environment: Mapping[str, str]) -> OutputMode | None:
    """Return the mode that OUTPUT_MODE names, None if it is unset. Raises `ConfigError`."""
    mode_name = Variables(environment).read_text("OUTPUT_MODE")
    if mode_name is None or mode_name.lower() in OUTPUT_MODES:
        return None if mode_name is None else mode_name.lower()
    raise ConfigError(
        f"OUTPUT_MODE is {mode_name!r}; it must be one of {', '.join(OUTPUT_MODES)}.",
        variable="OUTPUT_MODE",
        value=mode_name,
    )
