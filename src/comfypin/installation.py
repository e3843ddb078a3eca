"""Says what to type to add an extra to this installation of comfypin: in a checkout, of uv, from a file, of a registry.

One command does not fit all: `pip install 'comfypin[s3]'` asks a registry, where a checkout's comfypin is not, and uv's
environments have no pip.
"""

import json
import shlex
import sys
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from urllib.parse import unquote, urlsplit


def extra_command(extra: str, *, prefix: Path | None = None, distribution: Distribution | None = None) -> str:
    """Return the command that adds an extra to the installation in `prefix` (default: the running one)."""
    prefix = Path(sys.prefix) if prefix is None else prefix
    origin = _origin_of(_installed() if distribution is None else distribution)
    folder = _local_folder(origin)
    if folder is not None and (folder / "Makefile").is_file() and prefix == folder / ".venv":
        return f"make -C {shlex.quote(str(folder))} install EXTRAS={extra}"
    requirement = f"comfypin[{extra}]"
    if folder is not None:
        # An editable installation stays one.
        editable = "-e " if origin.get("dir_info") == {"editable": True} else ""
        requirement = f"{editable}{shlex.quote(f'{folder}[{extra}]')}"
    elif isinstance(url := origin.get("url"), str):
        requirement = shlex.quote(f"comfypin[{extra}] @ {url}")
    else:
        requirement = f"'{requirement}'"
    # uv tool's own note: its environments are not installed into by hand.
    if (prefix / "uv-receipt.toml").is_file():
        return f"uv tool install --force {requirement}"
    if _has_pip(prefix):
        return f"{shlex.quote(str(prefix / 'bin' / 'python'))} -m pip install {requirement}"
    return f"uv pip install --python {shlex.quote(str(prefix))} {requirement}"


def _installed() -> Distribution | None:
    try:
        return Distribution.from_name("comfypin")
    except PackageNotFoundError:
        # Run from a folder on PYTHONPATH, as the doors do.
        return None


def _origin_of(distribution: Distribution | None) -> dict[str, object]:
    """Return what PEP 610 records of an installation that came from a folder, a file or an address; else nothing."""
    origin_text = distribution.read_text("direct_url.json") if distribution is not None else None
    try:
        origin = json.loads(origin_text) if origin_text else {}
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}


def _local_folder(origin: dict[str, object]) -> Path | None:
    url = origin.get("url")
    if "dir_info" not in origin or not isinstance(url, str) or not url.startswith("file://"):
        return None
    return Path(unquote(urlsplit(url).path))


def _has_pip(prefix: Path) -> bool:
    return any(prefix.glob("lib/python3*/site-packages/pip/__init__.py"))
