"""Computes a release's build context from its lock (pure): files by path, and the Dockerfile's arguments."""

import io
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from comfypin.image.errors import ReleaseUnfitForImage
from comfypin.image.interface import Bake
from comfypin.lock.codec import lock_digest, render_lock
from comfypin.lock.model import DEFAULT_PYTHON, Lock, PythonPins

# 2020-01-01, the time of every file in a layer; docker/steps/settle.sh has it too.
FIXED_TIME_S = 1577836800
# What comfypin itself runs on; see pyproject.toml.
OLDEST_PYTHON = (3, 11)
_VARIABLES_BLOCK = re.compile(r"^# \[variables\].*?^# \[/variables\]\n", re.MULTILINE | re.DOTALL)
_MODEL_BLOCK = re.compile(r"^# \[model\].*?\n(.*?)^# \[/model\]\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFiles:
    """Holds what comfypin brings into every image: the Dockerfile and its steps, and itself.

    `requirements` are its dependencies by sha256, `installer` is the one of them that installs the others; `wheel` is
    comfypin as a file, None if it is installed by version.
    """

    dockerfile: str
    steps: Mapping[str, bytes]
    requirements: bytes
    installer: bytes
    version: str
    wheel: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """Says what of a release goes into its image, and which base it is built on."""

    bake: Bake = "env"
    base: str | None = None
    vendor: Path | None = None
    workflows: Mapping[str, bytes] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildContext:
    """Holds small files by path, files and folders to copy by path, and the build's arguments."""

    files: Mapping[str, bytes]
    copies: Mapping[str, Path]
    arguments: Mapping[str, str]


def compute_context(lock: Lock, own_files: OwnFiles, options: ImageOptions) -> BuildContext:
    """Return the build context of a release. Raises `ReleaseUnfitForImage`."""
    bakes_env = bakes_an_env(lock, options.bake)
    baked_models = lock.models if options.bake == "env+models" else ()
    # Without models: else a new model would invalidate the cached layers of the env.
    env_lock = replace(lock, models=())
    arguments = _build_arguments(lock, options)
    dockerfile = render_dockerfile(own_files.dockerfile, len(baked_models), options.variables)
    files: dict[str, bytes] = {
        "Dockerfile": set_defaults(dockerfile, arguments).encode(),
        **{f"steps/{file_name}": file_content for file_name, file_content in own_files.steps.items()},
        "mounts.tar": _make_mount_archive(),
        "requirements/all.txt": own_files.requirements,
        "requirements/installer.txt": own_files.installer,
        # Only what the env is made of: another model, or another engine argument, is no reason to realize it again.
        "env/lock.json": render_lock(env_lock) if bakes_env else b"{}\n",
        "vendor/README": b"`comfypin image build --vendor DIR` puts a vendor folder here.\n",
        f"release/app/lockfiles/comfy-{lock.version_name}.lock.json": render_lock(lock),
        **{f"release/app/workflows/{file_name}": file_content for file_name, file_content in options.workflows.items()},
    }
    for model_number, model in enumerate(baked_models, start=1):
        model_lock = Lock(version_name=lock.version_name, models=(model,), python=PythonPins())
        files[f"models/{model_number}/lock.json"] = render_lock(model_lock)
    copied_paths: dict[str, Path] = {}
    if own_files.wheel is not None:
        copied_paths[f"comfypin/{own_files.wheel.name}"] = own_files.wheel
    else:
        files["comfypin/requirement.txt"] = f"comfypin=={own_files.version}\n".encode()
    if options.vendor is not None:
        copied_paths["vendor"] = options.vendor
    return BuildContext(files=files, copies=copied_paths, arguments=arguments)


def bakes_an_env(lock: Lock, bake_mode: Bake) -> bool:
    """Return whether the image will hold an env: only a ComfyUI of ours needs one."""
    return bake_mode != "nothing" and lock.engine.kind == "comfyui"


def render_dockerfile(dockerfile_template: str, model_count: int, variables: Mapping[str, str] | None = None) -> str:
    """Return the Dockerfile with its model block repeated once for each model to bake, and the image's variables."""

    def repeat_block(block_match: re.Match[str]) -> str:
        return "".join(
            block_match[1].replace("@MODEL@", str(model_number)) for model_number in range(1, model_count + 1)
        )

    # One block for each model: a Dockerfile has no loops, and each model is a layer of its own.
    with_models = _MODEL_BLOCK.sub(repeat_block, dockerfile_template)
    lines = [
        f"ENV {variable_name}={_quote_word(value)}\n" for variable_name, value in sorted((variables or {}).items())
    ]
    return _VARIABLES_BLOCK.sub(lambda _match: "".join(lines), with_models)


def set_defaults(dockerfile: str, arguments: Mapping[str, str]) -> str:
    """Return the Dockerfile with the arguments as defaults, so that whoever is given only the context builds the same.

    Runpod's GitHub builds take a repository and its Dockerfile, and no arguments.
    """

    def set_default(line_match: re.Match[str]) -> str:
        variable_name = line_match[1]
        return (
            f"ARG {variable_name}={_quote_word(arguments[variable_name])}"
            if variable_name in arguments
            else line_match[0]
        )

    return re.sub(r"^ARG (\w+)(=.*)?$", set_default, dockerfile, flags=re.MULTILINE)


def _quote_word(text: str) -> str:
    # Within double quotes these three mean something: https://docs.docker.com/reference/dockerfile/#environment-replacement
    escaped = re.sub(r'([\\"$])', r"\\\1", text)
    return f'"{escaped}"'


def choose_base_image(lock: Lock, wanted_base: str | None) -> str:
    """Return the base image: the lock's Python on Debian unless another is named. Raises `ReleaseUnfitForImage`."""
    if wanted_base is not None:
        return wanted_base
    # The minor version only: a patch release must not ask for another base image.
    python_version = ".".join((lock.python.version or DEFAULT_PYTHON).split(".")[:2])
    if tuple(int(version_part) for version_part in python_version.split(".") if version_part.isdigit()) < OLDEST_PYTHON:
        raise ReleaseUnfitForImage(
            release=lock.version_name,
            reason=f"it is locked for Python {python_version}, and comfypin runs on 3.11 and newer",
            remedy="give --base an image that has both, the newer one as python3",
        )
    return f"python:{python_version}-slim-bookworm"


def list_system_packages(lock: Lock, bake_mode: Bake) -> tuple[str, ...]:
    """Return the OS packages of the image; git too, if the env is realized only when a container starts."""
    # An image that holds nothing serves any lock, whatever it was built for: `runpod up` gives it another one.
    needs_git = bake_mode == "nothing" or (lock.engine.kind == "comfyui" and not bakes_an_env(lock, bake_mode))
    return tuple(sorted({*lock.system_packages, *(["git"] if needs_git else [])}))


def _make_mount_archive() -> bytes:
    """Make an archive of an empty /etc/hosts and /etc/resolv.conf: unpacking one sets the folder's time too."""
    archive_buffer = io.BytesIO()
    with tarfile.open(fileobj=archive_buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar_archive:
        for file_name, member_type, file_mode in (
            ("etc", tarfile.DIRTYPE, 0o755),
            ("etc/hosts", tarfile.REGTYPE, 0o644),
            ("etc/resolv.conf", tarfile.REGTYPE, 0o644),
        ):
            archive_member = tarfile.TarInfo(file_name)
            archive_member.type, archive_member.mode, archive_member.mtime = member_type, file_mode, FIXED_TIME_S
            tar_archive.addfile(archive_member)
    return archive_buffer.getvalue()


def _build_arguments(lock: Lock, options: ImageOptions) -> dict[str, str]:
    return {
        "BASE": choose_base_image(lock, options.base),
        "SYSTEM_PACKAGES": " ".join(list_system_packages(lock, options.bake)),
        "BAKE_ENV": "yes" if bakes_an_env(lock, options.bake) else "no",
        "VERSION_NAME": lock.version_name,
        "LOCK_DIGEST": str(lock_digest(lock)),
    }
