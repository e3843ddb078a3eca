"""The folder for state that needs a local disk: outboxes, job queues, notes of uploads."""

from collections.abc import Mapping
from pathlib import Path

from comfypin.settings.variables import Variables


def state_folder(environment: Mapping[str, str]) -> Path:
    """Return COMFYPIN_STATE_DIR, else `comfypin` in XDG_STATE_HOME or ~/.local/state."""
    variables = Variables(environment)
    # Containers often have no HOME.
    home_folder = variables.read_path("HOME") or Path("/root")
    return (
        variables.read_path("COMFYPIN_STATE_DIR")
        or (variables.read_path("XDG_STATE_HOME") or home_folder / ".local" / "state") / "comfypin"
    )
