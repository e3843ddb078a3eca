"""Where state that needs a local disk lies: outboxes, job queues, notes of uploads."""

from collections.abc import Mapping
from pathlib import Path

from comfypin.settings.variables import Variables


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return COMFYPIN_STATE_DIR, else `comfypin` in XDG_STATE_HOME or ~/.local/state."""
    env = Variables(environ)
    home = env.path("HOME") or Path("/root")
    return env.path("COMFYPIN_STATE_DIR") or (env.path("XDG_STATE_HOME") or home / ".local" / "state") / "comfypin"
