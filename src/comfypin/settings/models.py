"""How models are brought: their store, the tokens of their sources, and caches that may have them already."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.settings.variables import Variables

DEFAULT_CONNECTIONS = 16
HUB = "https://huggingface.co"
CIVITAI = "https://civitai.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How models are brought. The tokens are in no repr, so that no log or traceback shows them.

    `store` is COMFYPIN_MODEL_STORE (default: `.comfypin` in MODELS_DIR); `connections` COMFYPIN_CONNECTIONS; `durable`
    COMFYPIN_DURABLE; the tokens HF_TOKEN (or HUGGING_FACE_HUB_TOKEN) and CIVITAI_TOKEN (or CIVITAI_API_TOKEN,
    CIVITAI_API_KEY); `hub_caches` are folders laid out as the hub's cache: Runpod's (COMFYPIN_RUNPOD_CACHE), then the
    hub library's own (HF_HUB_CACHE, HF_HOME).
    """

    store: Path | None = None
    connections: int = DEFAULT_CONNECTIONS
    durable: bool = False
    hub_endpoint: str = HUB
    hub_token: str | None = field(default=None, repr=False)
    hub_caches: tuple[Path, ...] = ()
    civitai_endpoint: str = CIVITAI
    civitai_token: str | None = field(default=None, repr=False)

    @classmethod
    def from_variables(cls, environ: Mapping[str, str]) -> "ModelSettings":
        """Read the variables; empty ones count as unset. Raises `ConfigError`."""
        env = Variables(environ)
        home = env.path("HF_HOME") or (env.path("HOME") or Path("/root")) / ".cache" / "huggingface"
        named_cache = env.text("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
        return cls(
            store=env.path("COMFYPIN_MODEL_STORE"),
            connections=env.count("COMFYPIN_CONNECTIONS", default=DEFAULT_CONNECTIONS, minimum=1, maximum=128),
            durable=env.flag("COMFYPIN_DURABLE"),
            hub_endpoint=env.text("HF_ENDPOINT") or HUB,
            hub_token=env.header("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN"),
            hub_caches=(
                env.path("COMFYPIN_RUNPOD_CACHE") or Path("/runpod-volume/huggingface-cache/hub"),
                Path(named_cache) if named_cache else home / "hub",
            ),
            civitai_endpoint=env.text("CIVITAI_ENDPOINT") or CIVITAI,
            civitai_token=env.header("CIVITAI_TOKEN", "CIVITAI_API_TOKEN", "CIVITAI_API_KEY"),
        )
