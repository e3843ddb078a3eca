"""Choose the image that workers run: the one that is named, or comfypin's own of this version; always by digest.

Each release publishes one image for each line of Python, on which an env is built and unpacked, and of CUDA, which a
host's driver must offer: `comfypin-worker:0.2.0-py3.12-cu128`; without CUDA, `comfypin-worker:0.2.0-py3.12`.
"""

import re
from importlib.metadata import PackageNotFoundError, metadata
from typing import TYPE_CHECKING

from comfypin import __version__
from comfypin.errors import ComfypinError

if TYPE_CHECKING:
    from comfypin.lock.model import Lock
    from comfypin.settings.environment import Settings

# What .github/workflows/release.yml builds; a test holds both together.
PYTHON_LINES = ("3.11", "3.12", "3.13", "3.14")
CUDA_LINES = ("12.6", "12.8", "13.0")
_OWNER = re.compile(r"https://github\.com/([A-Za-z0-9-]+)/")


def resolve_worker_image(
    named_image: str | None, lock: "Lock", settings: "Settings", *, repository: str | None = None
) -> str:
    """Return the named image, else the one for this lock, by digest; a tag is asked of its registry once.

    `repository` has the images of this version, if it is another one than where its releases are published. Raises
    `WorkerImageUnknown`.
    """
    image = name_worker_image(named_image, lock, repository=repository)
    if "@sha256:" in image:
        return image
    from comfypin.image.errors import AttachFailed, LoginRefused
    from comfypin.image.image_names import registry_host
    from comfypin.image.registry_client import ImageRepository
    from comfypin.image.registry_login import find_credential
    from comfypin.runpod.up.errors import WorkerImageUnknown
    from comfypin.wiring import http_proxies

    image_name, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        image_name, tag = image, "latest"
    credential = find_credential(registry_host(image), settings.variables)
    try:
        manifest = ImageRepository(
            reference=image, credential=credential, proxies=http_proxies(settings)
        ).read_manifest(tag)
    except LoginRefused as refused:
        # Registries say the same of an image that is not there, so that nobody can ask for names.
        shown_to = f"anybody without a login ({refused.advice})" if refused.source is None else refused.source
        why = "it is private, or there is none of this name"
        raise WorkerImageUnknown(reason=f"{refused.registry} does not show {image} to {shown_to}: {why}") from refused
    except ComfypinError as error:
        # Reading is meant here; what this error says of itself is about a push.
        why = error.reason if isinstance(error, AttachFailed) else error.message
        raise WorkerImageUnknown(reason=f"{registry_host(image)} does not tell the digest of {image}: {why}") from error
    if manifest is None:
        raise WorkerImageUnknown(reason=f"The registry has no image {image}")
    return f"{image_name}@{manifest.digest}"


def name_worker_image(named_image: str | None, lock: "Lock", *, repository: str | None = None) -> str:
    """Return the named image, else the one for this lock by its tag; nobody is asked. Raises `WorkerImageUnknown`."""
    return named_image or f"{repository or _own_repository()}:{__version__}-{choose_line(lock)}"


def choose_line(lock: "Lock") -> str:
    """Return the part of a tag that says for which Python and CUDA an image is: `py3.12-cu128`, or `py3.12`.

    An image never asks a host for a newer CUDA than the lock's torch does. Raises `WorkerImageUnknown`.
    """
    from comfypin.lock.model import DEFAULT_PYTHON
    from comfypin.lock.torch import minimum_cuda
    from comfypin.runpod.up.errors import WorkerImageUnknown

    python_line = ".".join((lock.python.version or DEFAULT_PYTHON).split(".")[:2])
    if python_line not in PYTHON_LINES:
        raise WorkerImageUnknown(
            reason=f"The lock is for Python {python_line}; worker images are published for {', '.join(PYTHON_LINES)}"
        )
    needed_cuda = minimum_cuda(lock.python.packages)
    fitting = [line for line in CUDA_LINES if needed_cuda is not None and _parse(line) <= _parse(needed_cuda)]
    return f"py{python_line}-cu{fitting[-1].replace('.', '')}" if fitting else f"py{python_line}"


def _parse(version_text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version_text.split("."))


def _own_repository() -> str:
    """Return where the releases of comfypin publish their images: on the registry of the project's owner."""
    from comfypin.runpod.up.errors import WorkerImageUnknown

    try:
        addresses = metadata("comfypin").get_all("Project-URL") or []
    except PackageNotFoundError:
        addresses = []
    owner = next((match[1] for address in addresses if (match := _OWNER.search(address)) is not None), None)
    if owner is None:
        raise WorkerImageUnknown(reason="This comfypin does not say where its worker image is published")
    return f"ghcr.io/{owner.lower()}/comfypin-worker"
