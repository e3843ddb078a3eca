"""The settings of realizing a lock: caches, packs, a vendor folder, the node registry."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from comfypin.settings.variables import Variables

NODE_REGISTRY = "https://api.comfy.org"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSettings:
    """Where realizing finds things beside the lock.

    `cache_dir` is COMFYPIN_CACHE_DIR, else `comfypin` in XDG_CACHE_HOME or ~/.cache; `packs` COMFYPIN_PACKS, a folder
    or bucket of env packs; `vendor` COMFYPIN_VENDOR; `offline` COMFYPIN_OFFLINE; `registry_url`
    COMFYPIN_REGISTRY_URL, the node registry that locks are made with; `uv_cache` UV_CACHE_DIR, the user's own cache.
    """

    cache_dir: Path
    packs: str | None = None
    vendor: Path | None = None
    offline: bool = False
    registry_url: str = NODE_REGISTRY
    uv_cache: Path | None = None

    def with_flags(
        self, *, packs: str | None = None, vendor: Path | None = None, offline: bool = False
    ) -> "EnvSettings":
        """Return the settings with the values of flags instead of the environment's."""
        # A flag can add to the environment, but an absent one takes nothing away.
        return replace(self, packs=packs or self.packs, vendor=vendor or self.vendor, offline=offline or self.offline)

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "EnvSettings":
        """Read the variables; empty ones count as unset. Raises `SettingInvalid`."""
        variables = Variables(environment)
        cache_root = variables.read_path("XDG_CACHE_HOME") or (variables.read_path("HOME") or Path("/root")) / ".cache"
        uv_cache = variables.read_path("UV_CACHE_DIR")
        return cls(
            cache_dir=variables.read_path("COMFYPIN_CACHE_DIR") or cache_root / "comfypin",
            packs=variables.read_text("COMFYPIN_PACKS"),
            vendor=variables.read_path("COMFYPIN_VENDOR"),
            offline=variables.read_flag("COMFYPIN_OFFLINE"),
            registry_url=variables.read_text("COMFYPIN_REGISTRY_URL") or NODE_REGISTRY,
            # uv is started in other folders than this process.
            uv_cache=uv_cache.absolute() if uv_cache else None,
        )
