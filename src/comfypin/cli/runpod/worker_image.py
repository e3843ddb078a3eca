"""Which image workers run: the one that is named, or comfypin's own of this version; always by digest."""

import re
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import TYPE_CHECKING

from comfypin.errors import ComfypinError

if TYPE_CHECKING:
    from comfypin.settings.environment import Settings

_OWNER = re.compile(r"https://github\.com/([A-Za-z0-9-]+)/")


def resolve_worker_image(named_image: str | None, settings: "Settings") -> str:
    """Return the image by digest; the registry is asked for a tag's digest once. Raises `WorkerImageUnknown`."""
    image = named_image or _own_image()
    if "@sha256:" in image:
        return image
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
    except ComfypinError as error:
        raise WorkerImageUnknown(
            reason=f"The registry does not tell the digest of {image} ({error.message})"
        ) from error
    if manifest is None:
        raise WorkerImageUnknown(reason=f"The registry has no image {image}")
    return f"{image_name}@{manifest.digest}"


def _own_image() -> str:
    """Return the image that the release of this version publishes, on the registry of the project's owner."""
    from comfypin.runpod.up.errors import WorkerImageUnknown

    try:
        addresses = metadata("comfypin").get_all("Project-URL") or []
        own_version = version("comfypin")
    except PackageNotFoundError:
        addresses, own_version = [], ""
    owner = next((match[1] for address in addresses if (match := _OWNER.search(address)) is not None), None)
    if owner is None:
        raise WorkerImageUnknown(reason="This comfypin does not say where its worker image is published")
    return f"ghcr.io/{owner.lower()}/comfypin-worker:{own_version}"
