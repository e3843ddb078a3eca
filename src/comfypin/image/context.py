"""The build context of a release, computed from its lock (pure): files by path, and the Dockerfile's arguments."""

import io
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from comfypin.image.errors import ReleaseUnfitForImage
from comfypin.image.interface import Bake
from comfypin.lock.codec import lock_digest, render_lock
from comfypin.lock.export import export_lock
from comfypin.lock.model import Lock, PythonPins

DEFAULT_PYTHON = "3.12"
# 2020-01-01, the time of every file in a layer; docker/steps/settle.sh has it too.
FIXED_TIME_S = 1577836800
# What comfypin itself runs on; see pyproject.toml.
OLDEST_PYTHON = (3, 11)
_MODEL_BLOCK = re.compile(r"^# \[model\].*?\n(.*?)^# \[/model\]\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFiles:
    """What comfypin brings into every image: the Dockerfile and its steps, and itself.

    `requirements` are its dependencies by sha256, `installer` of them the one that installs the others; `wheel` is
    itself as a file, None where it is installed by version.
    """

    dockerfile: str
    steps: Mapping[str, bytes]
    requirements: bytes
    installer: bytes
    version: str
    wheel: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What of a release goes into its image, and on what it stands."""

    bake: Bake = "env"
    base: str | None = None
    vendor: Path | None = None
    workflows: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The context: small files by path, files and folders to copy by path, and the build's arguments."""

    files: Mapping[str, bytes]
    copies: Mapping[str, Path]
    arguments: Mapping[str, str]


def compute_context(lock: Lock, own: OwnFiles, wish: Wish) -> Context:
    """The context of a release. Raises `ReleaseUnfitForImage`."""
    bakes_env = bakes_an_env(lock, wish.bake)
    models = lock.models if wish.bake == "env+models" else ()
    env = replace(lock, models=())
    files: dict[str, bytes] = {
        "Dockerfile": dockerfile_for(own.dockerfile, len(models)).encode(),
        **{f"steps/{name}": data for name, data in own.steps.items()},
        "mounts.tar": _mount_points(),
        "requirements/all.txt": own.requirements,
        "requirements/installer.txt": own.installer,
        # Only what the env is made of: another model, or another engine argument, is no reason to realize anew.
        "env/lock.json": render_lock(env) if bakes_env else b"{}\n",
        "vendor/README": b"`comfypin image build --vendor DIR` puts a vendor folder here.\n",
        # What is in the image, in words that scanners read.
        f"release/app/sbom/comfy-{lock.version_name}.cdx.json": export_lock(lock, "cyclonedx").encode(),
        f"release/app/lockfiles/comfy-{lock.version_name}.lock.json": render_lock(lock),
        **{f"release/app/workflows/{name}": data for name, data in wish.workflows.items()},
    }
    for number, model in enumerate(models, start=1):
        one = Lock(version_name=lock.version_name, models=(model,), python=PythonPins())
        files[f"models/{number}/lock.json"] = render_lock(one)
    copies: dict[str, Path] = {}
    if own.wheel is not None:
        copies[f"comfypin/{own.wheel.name}"] = own.wheel
    else:
        files["comfypin/requirement.txt"] = f"comfypin=={own.version}\n".encode()
    if wish.vendor is not None:
        copies["vendor"] = wish.vendor
    return Context(files=files, copies=copies, arguments=_arguments(lock, wish))


def bakes_an_env(lock: Lock, bake: Bake) -> bool:
    """Whether the image will hold an env: only a ComfyUI of ours needs one."""
    return bake != "nothing" and lock.engine.kind == "comfyui"


def dockerfile_for(template: str, models: int) -> str:
    """The Dockerfile with its model block as often as there are models to bake."""

    def blocks(match: re.Match[str]) -> str:
        return "".join(match[1].replace("@MODEL@", str(number)) for number in range(1, models + 1))

    return _MODEL_BLOCK.sub(blocks, template)


def base_image(lock: Lock, wanted: str | None) -> str:
    """The image that everything stands on: the lock's Python on Debian. Raises `ReleaseUnfitForImage`."""
    if wanted is not None:
        return wanted
    version = ".".join((lock.python.version or DEFAULT_PYTHON).split(".")[:2])
    if tuple(int(part) for part in version.split(".") if part.isdigit()) < OLDEST_PYTHON:
        raise ReleaseUnfitForImage(
            release=lock.version_name,
            reason=f"it is locked for Python {version}, and comfypin runs on 3.11 and newer",
            remedy="give --base an image that has both, the newer one as python3",
        )
    return f"python:{version}-slim-bookworm"


def system_packages(lock: Lock, bake: Bake) -> tuple[str, ...]:
    """The OS packages of the image; git too, where the env is realized only when a container starts."""
    late = lock.engine.kind == "comfyui" and not bakes_an_env(lock, bake)
    return tuple(sorted({*lock.system_packages, *(["git"] if late else [])}))


def _mount_points() -> bytes:
    """Empty /etc/hosts and /etc/resolv.conf as an archive: unpacking one sets the folder's time too."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, kind, mode in (
            ("etc", tarfile.DIRTYPE, 0o755),
            ("etc/hosts", tarfile.REGTYPE, 0o644),
            ("etc/resolv.conf", tarfile.REGTYPE, 0o644),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.mtime = kind, mode, FIXED_TIME_S
            archive.addfile(member)
    return buffer.getvalue()


def _arguments(lock: Lock, wish: Wish) -> dict[str, str]:
    return {
        "BASE": base_image(lock, wish.base),
        "SYSTEM_PACKAGES": " ".join(system_packages(lock, wish.bake)),
        "BAKE_ENV": "yes" if bakes_an_env(lock, wish.bake) else "no",
        "VERSION_NAME": lock.version_name,
        "LOCK_DIGEST": str(lock_digest(lock)),
    }
