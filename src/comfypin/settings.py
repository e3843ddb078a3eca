"""The only reader of the environment: variables in, frozen settings out, with the documented names and defaults."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from comfypin.errors import ConfigError
from comfypin.storage.registry import KINDS

OutputMode: TypeAlias = str
"""`base64`, `file`, or the name of a kind of bucket (`comfypin.storage.registry`)."""
NODE_REGISTRY = "https://api.comfy.org"
OUTPUT_MODES: tuple[OutputMode, ...] = ("base64", *KINDS, "file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says, parsed once. The documented variables are listed in docs/environment.md.

    `fast_models_dir` is COMFYPIN_FAST_MODELS, where models are staged; the engine looks there first.
    `embedded_version` is COMFYPIN_EMBEDDED_VERSION, the ComfyUI release that the embedded engine is.
    `engine_standby` is COMFYPIN_ENGINE_STANDBY: whether a second engine waits to take a dead one's place.
    `environ` is what child processes inherit (without its secrets: `engine.command`); it is never printed.
    """

    comfy_home: Path
    named_models_dir: Path | None
    lock_path: Path | None
    version_name: str | None
    output_mode: OutputMode
    fast_models_dir: Path | None = None
    embedded_version: str | None = None
    engine_standby: bool = False
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def models_dir(self) -> Path:
        """Where models lie: MODELS_DIR, else `models` in COMFY_HOME."""
        return self.named_models_dir or self.comfy_home / "models"

    def overridden(self, *, comfy_home: Path | None = None, models_dir: Path | None = None) -> "Settings":
        """The settings with what flags say in place of the environment."""
        return replace(
            self,
            comfy_home=comfy_home or self.comfy_home,
            named_models_dir=models_dir or self.named_models_dir,
        )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the variables; empty ones count as unset. Raises `ConfigError` naming the variable that is wrong."""

        def text(name: str) -> str | None:
            return environ.get(name, "").strip() or None

        def path(name: str) -> Path | None:
            value = text(name)
            return Path(value) if value else None

        return cls(
            comfy_home=path("COMFY_HOME") or Path("/opt/comfy"),
            named_models_dir=path("MODELS_DIR"),
            lock_path=path("LOCK_PATH"),
            version_name=text("COMFY_VERSION_NAME"),
            output_mode=_output_mode(text("OUTPUT_MODE")),
            fast_models_dir=path("COMFYPIN_FAST_MODELS"),
            embedded_version=text("COMFYPIN_EMBEDDED_VERSION"),
            engine_standby=_switch("COMFYPIN_ENGINE_STANDBY", text("COMFYPIN_ENGINE_STANDBY")),
            environ=dict(environ),
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
class EnvSettings:
    """Where realizing finds things beside the lock.

    `cache_dir` is COMFYPIN_CACHE_DIR, else `comfypin` in XDG_CACHE_HOME or ~/.cache; `packs` COMFYPIN_PACKS, a folder
    or bucket of env packs; `vendor` COMFYPIN_VENDOR; `offline` COMFYPIN_OFFLINE; `registry_url`
    COMFYPIN_REGISTRY_URL, the node registry that locks are made with.
    """

    cache_dir: Path
    packs: str | None = None
    vendor: Path | None = None
    offline: bool = False
    registry_url: str = NODE_REGISTRY

    def overridden(
        self, *, packs: str | None = None, vendor: Path | None = None, offline: bool = False
    ) -> "EnvSettings":
        """The settings with what flags say in place of the environment."""
        return replace(self, packs=packs or self.packs, vendor=vendor or self.vendor, offline=offline or self.offline)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "EnvSettings":
        """Read the variables; empty ones count as unset. Raises `ConfigError`."""

        def text(name: str) -> str | None:
            return environ.get(name, "").strip() or None

        caches = Path(text("XDG_CACHE_HOME") or Path(text("HOME") or "/root") / ".cache")
        vendor = text("COMFYPIN_VENDOR")
        return cls(
            cache_dir=Path(text("COMFYPIN_CACHE_DIR") or caches / "comfypin"),
            packs=text("COMFYPIN_PACKS"),
            vendor=Path(vendor) if vendor else None,
            offline=_switch("COMFYPIN_OFFLINE", text("COMFYPIN_OFFLINE")),
            registry_url=text("COMFYPIN_REGISTRY_URL") or NODE_REGISTRY,
        )


def _switch(name: str, text: str | None) -> bool:
    if text is None or text.lower() in {"0", "false", "no", "off"}:
        return False
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    raise ConfigError(f"{name} is {text!r}; it must be true or false.", variable=name, value=text)


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
        """Read RUNPOD_*; empty variables count as unset. Raises `ConfigError`."""
        read = {
            "api_key": environ.get("RUNPOD_API_KEY", "").strip(),
            "api_url": environ.get("RUNPOD_API_URL", "").strip().rstrip("/"),
            "jobs_url": environ.get("RUNPOD_ENDPOINT_BASE_URL", "").strip().rstrip("/"),
            "volumes_url": environ.get("RUNPOD_S3_URL", "").strip().rstrip("/"),
            "s3_access_key": environ.get("RUNPOD_S3_ACCESS_KEY", "").strip(),
            "s3_secret_key": environ.get("RUNPOD_S3_SECRET_KEY", "").strip(),
        }
        for name, variable in (("api_key", "RUNPOD_API_KEY"), ("s3_access_key", "RUNPOD_S3_ACCESS_KEY")):
            fit_for_headers(variable, read[name])
        return cls(**{name: value for name, value in read.items() if value})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """How a server is reached. The token and secret are in no repr.

    `token` is COMFYPIN_TOKEN; `webhook_secret` COMFYPIN_WEBHOOK_SECRET; `public_url` COMFYPIN_PUBLIC_URL, else RunPod's
    proxy of RUNPOD_POD_ID; `port` PORT, and `health_port` PORT_HEALTH where a load balancer asks another one;
    `metrics_port` is COMFYPIN_METRICS_PORT, for a worker, which has no server of its own.
    """

    token: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    public_url: str | None = None
    pod_id: str | None = None
    port: int | None = None
    health_port: int | None = None
    metrics_port: int | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def mapped(self, port: int) -> int:
        """The port to listen on: RunPod gives symmetrical ports (above 65535) in RUNPOD_TCP_PORT_<number>.

        Raises `ConfigError`.
        """
        name = f"RUNPOD_TCP_PORT_{port}"
        given = self.environ.get(name, "").strip()
        if given and port > 65_535:
            return _port(name, given)
        if not 0 <= port <= 65_535:
            raise ConfigError(
                f"{port} is no port, and {name} does not say which one RunPod gave for it.", variable=name
            )
        return port

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "ServeSettings":
        """Read the variables; empty ones count as unset. Raises `ConfigError`."""

        def text(name: str) -> str | None:
            return environ.get(name, "").strip() or None

        def port(name: str) -> int | None:
            value = text(name)
            return None if value is None else _port(name, value)

        url = text("COMFYPIN_PUBLIC_URL")
        return cls(
            token=text("COMFYPIN_TOKEN"),
            webhook_secret=text("COMFYPIN_WEBHOOK_SECRET"),
            public_url=url.rstrip("/") if url else None,
            pod_id=text("RUNPOD_POD_ID"),
            port=port("PORT"),
            health_port=port("PORT_HEALTH"),
            metrics_port=port("COMFYPIN_METRICS_PORT"),
            environ=environ,
        )


def _port(name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 999_999:
        return int(text)
    raise ConfigError(f"{name} is {text!r}; it must be the number of a port.", variable=name, value=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrySettings:
    """What a container is to do when no command is given; the variables are listed in docs/images.md.

    `mode` is COMFYPIN_MODE; `serverless` whether RunPod Serverless started the container; `sync_to` COMFYPIN_SYNC_TO;
    `output_dir` COMFYPIN_OUTPUT_DIR; `page_listen` COMFYPIN_PAGE_LISTEN (`off`: no page); `grace_s` COMFYPIN_GRACE.
    """

    mode: str | None = None
    serverless: bool = False
    sync_to: str | None = None
    output_dir: Path | None = None
    page_listen: str = "127.0.0.1"
    grace_s: float = 25.0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "EntrySettings":
        """Read the variables; empty ones count as unset. Raises `ConfigError`."""

        def text(name: str) -> str | None:
            return environ.get(name, "").strip() or None

        mode = text("COMFYPIN_MODE")
        if mode not in (None, "worker", "pod"):
            raise ConfigError(f"COMFYPIN_MODE is {mode!r}; it must be worker or pod.", variable="COMFYPIN_MODE")
        grace = text("COMFYPIN_GRACE") or "25"
        if not (grace.isascii() and grace.isdigit() and int(grace) <= 3600):
            raise ConfigError(
                f"COMFYPIN_GRACE is {grace!r}; it must be seconds, 0 to 3600.", variable="COMFYPIN_GRACE", value=grace
            )
        output = text("COMFYPIN_OUTPUT_DIR")
        return cls(
            mode=mode,
            serverless=any(text(name) for name in ("RUNPOD_ENDPOINT_ID", "RUNPOD_WEBHOOK_GET_JOB")),
            sync_to=text("COMFYPIN_SYNC_TO"),
            output_dir=Path(output) if output else None,
            page_listen=text("COMFYPIN_PAGE_LISTEN") or "127.0.0.1",
            grace_s=float(grace),
        )


def named_variables(names: Iterable[str], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that a file names (registry credentials), those that are set. Secrets: never printed."""
    return {name: environ[name] for name in names if environ.get(name)}


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where state that needs a local disk lies (outboxes, job queues): COMFYPIN_STATE_DIR, else as XDG says."""
    if own := environ.get("COMFYPIN_STATE_DIR", "").strip():
        return Path(own)
    base = environ.get("XDG_STATE_HOME", "").strip() or Path(environ.get("HOME") or "/root", ".local", "state")
    return Path(base, "comfypin")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How models are brought. The tokens are in no repr, so that no log or traceback shows them.

    `store` is COMFYPIN_MODEL_STORE (default: `.comfypin` in MODELS_DIR); `connections` COMFYPIN_CONNECTIONS; `durable`
    COMFYPIN_DURABLE; the tokens HF_TOKEN (or HUGGING_FACE_HUB_TOKEN) and CIVITAI_TOKEN (or CIVITAI_API_TOKEN,
    CIVITAI_API_KEY); `hub_caches` are folders laid out as the hub's cache: RunPod's (COMFYPIN_RUNPOD_CACHE), then the
    hub library's own (HF_HUB_CACHE, HF_HOME).
    """

    store: Path | None = None
    connections: int = 16
    durable: bool = False
    hub_endpoint: str = "https://huggingface.co"
    hub_token: str | None = field(default=None, repr=False)
    hub_caches: tuple[Path, ...] = ()
    civitai_endpoint: str = "https://civitai.com"
    civitai_token: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "ModelSettings":
        """Read the variables; empty ones count as unset. Raises `ConfigError`."""

        def text(*names: str) -> str | None:
            return next((value for name in names if (value := environ.get(name, "").strip())), None)

        def token(*names: str) -> str | None:
            found = next(((name, value) for name in names if (value := text(name))), None)
            return None if found is None else fit_for_headers(*found)

        store = text("COMFYPIN_MODEL_STORE")
        home = Path(text("HF_HOME") or Path(text("HOME") or "/root", ".cache", "huggingface"))
        return cls(
            store=Path(store) if store else None,
            connections=_connections(text("COMFYPIN_CONNECTIONS")),
            durable=_switch("COMFYPIN_DURABLE", text("COMFYPIN_DURABLE")),
            hub_endpoint=text("HF_ENDPOINT") or "https://huggingface.co",
            hub_token=token("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN"),
            hub_caches=(
                Path(text("COMFYPIN_RUNPOD_CACHE") or "/runpod-volume/huggingface-cache/hub"),
                Path(text("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") or home / "hub"),
            ),
            civitai_endpoint=text("CIVITAI_ENDPOINT") or "https://civitai.com",
            civitai_token=token("CIVITAI_TOKEN", "CIVITAI_API_TOKEN", "CIVITAI_API_KEY"),
        )


def fit_for_headers(name: str, value: str) -> str:
    """A token or key id as it is; one that HTTP would not take is not shown in the refusal, nor in any later one.

    Raises `ConfigError`, with the name.
    """
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise ConfigError(
            f"What {name} holds (not shown) cannot be a token: it has spaces, line breaks or other characters than "
            "ASCII; copy it again.",
            variable=name,
        )
    return value


def _connections(text: str | None) -> int:
    if text is None:
        return 16
    if text.isdigit() and 1 <= int(text) <= 128:
        return int(text)
    raise ConfigError(
        f"COMFYPIN_CONNECTIONS is {text!r}; it must be a number from 1 to 128.",
        variable="COMFYPIN_CONNECTIONS",
        value=text,
    )
