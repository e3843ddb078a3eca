"""Parses the embedded engine's command line: ComfyUI's flags, so that one supervisor can start both."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comfypin.engine.embedded.releases import DEFAULT_RELEASE, RELEASES, ComfyRelease

_MEGABYTE = 1024 * 1024
_DEFAULT_PORT = 8188
_DEFAULT_UPLOAD_MB = 100.0

# ComfyUI's flags that change nothing here, because they are about models, devices, its web page or its log.
_IGNORED = (
    "auto-launch disable-auto-launch cpu disable-cuda-malloc cuda-malloc force-fp32 force-fp16 fp32-unet "
    "fp64-unet bf16-unet fp16-unet fp8_e4m3fn-unet fp8_e5m2-unet fp8_e8m0fnu-unet fp16-vae fp32-vae bf16-vae cpu-"
    "vae fp8_e4m3fn-text-enc fp8_e5m2-text-enc fp16-text-enc fp32-text-enc bf16-text-enc force-channels-last "
    "oneapi-device-selector disable-ipex-optimize supports-fp8-compute use-split-cross-attention use-quad-cross-"
    "attention use-pytorch-cross-attention use-sage-attention use-flash-attention disable-xformers force-upcast-"
    "attention dont-upcast-attention gpu-only highvram normalvram lowvram novram async-offload force-non-blocking "
    "disable-smart-memory deterministic mmap-torch-files disable-mmap dont-print-server quick-test-for-ci "
    "windows-standalone-build disable-all-custom-nodes disable-api-nodes multi-user log-stdout enable-compress-"
    "response-body cache-classic enable-manager enable-manager-legacy-ui disable-manager-ui enable-assets high-ram "
    "fast-disk disable-dynamic-vram disable-pinned-memory disable-async-offload disable-cuda-graphs "
)
_IGNORED_WITH_VALUE = (
    "tls-keyfile tls-certfile base-directory user-directory extra-model-paths-config cuda-device default-device "
    "directml preview-method preview-size cache-lru cache-ram reserve-vram default-hashing-function verbose "
    "front-end-version front-end-root comfy-api-base database-url enable-cors-header models-directory vram-headroom "
    "feature-flag "
)
_IGNORED_WITH_VALUES = ("fast", "whitelist-custom-nodes")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArguments:
    """Holds what the command line asked for."""

    listen: str
    port: int
    input: Path
    output: Path
    temp: Path
    max_upload_bytes: int
    metadata: bool = True
    caching: bool = True
    release: ComfyRelease = DEFAULT_RELEASE


def parse_arguments(argv: Sequence[str]) -> EngineArguments:
    """Read the flags; warn on stderr about flags that not even ComfyUI has, and ignore them."""
    parsed, unknown = _make_parser().parse_known_args(argv)
    if unknown:
        print(f"warning: the embedded engine ignores what it does not know: {' '.join(unknown)}", file=sys.stderr)  # noqa: T201
    # ComfyUI writes below its own folder; this engine has none, so it takes one of the machine's temp folders.
    base = Path(parsed.base_directory) if parsed.base_directory else Path(tempfile.gettempdir(), "comfypin-embedded")
    temp = Path(parsed.temp_directory) if parsed.temp_directory else base
    return EngineArguments(
        listen=parsed.listen,
        port=parsed.port,
        input=_absolute_path(parsed.input_directory, base / "input"),
        output=_absolute_path(parsed.output_directory, base / "output"),
        # Like ComfyUI, which puts its folder `temp` inside the folder that the flag names.
        temp=(temp / "temp").absolute(),
        max_upload_bytes=round(parsed.max_upload_size * _MEGABYTE),
        metadata=not parsed.disable_metadata,
        caching=not parsed.cache_none,
        release=RELEASES[parsed.comfyui_version],
    )


def _make_parser() -> argparse.ArgumentParser:
    """Make a parser that knows ComfyUI's flags, also those that change nothing here."""
    parser = argparse.ArgumentParser(
        prog="python -m comfypin.engine.embedded",
        description="A small CPU engine that speaks ComfyUI's API and executes its image nodes that need no model.",
        allow_abbrev=False,
    )
    parser.add_argument("--listen", nargs="?", default="127.0.0.1", const="0.0.0.0,::", help="address to listen on")
    parser.add_argument("--port", type=int, default=_DEFAULT_PORT, help="port to listen on")
    parser.add_argument("--input-directory", metavar="DIR", help="where load nodes read and uploads go")
    parser.add_argument("--output-directory", metavar="DIR", help="where save nodes write")
    parser.add_argument("--temp-directory", metavar="DIR", help="previews go into DIR/temp")
    parser.add_argument("--max-upload-size", type=float, default=_DEFAULT_UPLOAD_MB, metavar="MB", help="largest body")
    parser.add_argument("--disable-metadata", action="store_true", help="no prompt or workflow in saved pictures")
    parser.add_argument("--cache-none", action="store_true", help="run every node of every prompt")
    parser.add_argument(
        "--comfyui-version",
        choices=tuple(RELEASES),
        default=DEFAULT_RELEASE.version,
        help="the ComfyUI release whose nodes and API these are (default: %(default)s)",
    )
    for option_name in _IGNORED.split():
        parser.add_argument(f"--{option_name}", action="store_true", help=argparse.SUPPRESS)
    for option_name in _IGNORED_WITH_VALUE.split():
        parser.add_argument(f"--{option_name}", nargs="?", help=argparse.SUPPRESS)
    for option_name in _IGNORED_WITH_VALUES:
        parser.add_argument(f"--{option_name}", nargs="*", help=argparse.SUPPRESS)
    return parser


def _absolute_path(given_path: str | None, default: Path) -> Path:
    return (Path(given_path) if given_path else default).absolute()
