"""The only reader of the environment: variables in, frozen settings out, with the documented names and defaults."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says, parsed once. The documented variables are listed in docs/environment.md."""

    comfy_home: Path
    models_dir: Path
    lock_path: Path | None
    version_name: str | None
    output_mode: str

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
            output_mode=text("OUTPUT_MODE") or "gcs",
        )
