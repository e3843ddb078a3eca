"""The settings of models: their store, the tokens of their sources, and caches that may have them already."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.settings.variables import Variables

# With 40 ms to the server, 16 connections brought a large file a third sooner than 8.
DEFAULT_CONNECTIONS = 16
# Single files of video models are that large today; more is rather a mistake in an address.
MAX_MODEL_GB = 20
# A handful of the largest models, and room beside them on a usual disk.
KEEP_MODELS_GB = 100
HUB = "https://huggingface.co"
CIVITAI = "https://civitai.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How models are fetched. The tokens are in no repr, so that no log or traceback shows them.

    `store` is COMFYPIN_MODEL_STORE (default: `.comfypin` in MODELS_DIR); `connections` COMFYPIN_CONNECTIONS; `durable`
    COMFYPIN_DURABLE; the tokens HF_TOKEN (or HUGGING_FACE_HUB_TOKEN) and CIVITAI_TOKEN (or CIVITAI_API_TOKEN,
    CIVITAI_API_KEY); `hub_caches` are folders laid out as the hub's cache: Runpod's (COMFYPIN_RUNPOD_CACHE), then the
    hub library's own (HF_HUB_CACHE, HF_HOME). `allowed` (COMFYPIN_ALLOW_MODELS) are the hosts and buckets that jobs may
    bring models from, each up to `max_model_gb` (COMFYPIN_MAX_MODEL_GB), all up to `keep_models_gb`
    (COMFYPIN_KEEP_MODELS_GB).
    """

    store: Path | None = None
    connections: int = DEFAULT_CONNECTIONS
    durable: bool = False
    hub_endpoint: str = HUB
    hub_token: str | None = field(default=None, repr=False)
    hub_caches: tuple[Path, ...] = ()
    civitai_endpoint: str = CIVITAI
    civitai_token: str | None = field(default=None, repr=False)
    allowed: tuple[str, ...] = ()
    max_model_gb: int = MAX_MODEL_GB
    keep_models_gb: int = KEEP_MODELS_GB

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "ModelSettings":
        """Read the variables; empty ones count as unset. Raises `ConfigError`."""
        variables = Variables(environment)
        hub_home = (
            variables.read_path("HF_HOME") or (variables.read_path("HOME") or Path("/root")) / ".cache" / "huggingface"
        )
        named_cache = variables.read_text("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
        return cls(
            store=variables.read_path("COMFYPIN_MODEL_STORE"),
            connections=variables.read_count(
                "COMFYPIN_CONNECTIONS", default=DEFAULT_CONNECTIONS, minimum=1, maximum=128
            ),
            durable=variables.read_flag("COMFYPIN_DURABLE"),
            hub_endpoint=variables.read_text("HF_ENDPOINT") or HUB,
            # The names that Hugging Face's own library reads, the old ones too.
            hub_token=variables.read_header("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN"),
            hub_caches=(
                # Runpod mounts an endpoint's cached models there.
                variables.read_path("COMFYPIN_RUNPOD_CACHE") or Path("/runpod-volume/huggingface-cache/hub"),
                Path(named_cache) if named_cache else hub_home / "hub",
            ),
            civitai_endpoint=variables.read_text("CIVITAI_ENDPOINT") or CIVITAI,
            civitai_token=variables.read_header("CIVITAI_TOKEN", "CIVITAI_API_TOKEN", "CIVITAI_API_KEY"),
            allowed=split_names(variables.read_text("COMFYPIN_ALLOW_MODELS") or ""),
            max_model_gb=variables.read_count(
                "COMFYPIN_MAX_MODEL_GB", default=MAX_MODEL_GB, minimum=1, maximum=100_000
            ),
            keep_models_gb=variables.read_count(
                "COMFYPIN_KEEP_MODELS_GB", default=KEEP_MODELS_GB, minimum=1, maximum=1_000_000
            ),
        )


def split_names(names_text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas, without those that are empty."""
    return tuple(part.strip() for part in names_text.split(",") if part.strip())
