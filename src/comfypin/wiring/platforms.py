"""Container builders and RunPod: its API, its jobs, its volumes."""

from typing import TYPE_CHECKING

from comfypin.wiring.network import http_transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfypin.image.interface import ContainerBuilder
    from comfypin.runpod.management_api import ManagementApi
    from comfypin.runpod.volume_bucket import VolumeBucket
    from comfypin.settings.environment import Settings


def open_builder(wanted: str) -> "ContainerBuilder":
    """What builds images here: the one that is named, or with `auto` the first that works. Raises `NoBuilder`."""
    from comfypin.image.buildah import Buildah, explain_store_unusable
    from comfypin.image.docker import Docker, explain_docker_unusable
    from comfypin.image.errors import NoBuilder
    from comfypin.image.podman import Podman

    builders: dict[str, tuple[Callable[[], str | None], Callable[[], ContainerBuilder]]] = {
        "docker": (explain_docker_unusable, Docker),
        "buildah": (lambda: explain_store_unusable("buildah"), Buildah),
        "podman": (lambda: explain_store_unusable("podman"), Podman),
    }
    tried = []
    for why_not, make in [builders[wanted]] if wanted != "auto" else builders.values():
        if (reason := why_not()) is None:
            return make()
        tried.append(reason)
    raise NoBuilder(tried=tried)


def runpod_api(settings: "Settings") -> "ManagementApi":
    """RunPod's management API with the environment's key. Raises `ApiKeyMissing`."""
    return _runpod(settings, settings.runpod.api_url)


def runpod_jobs_api(settings: "Settings") -> "ManagementApi":
    """The job API of RunPod's endpoints, or of the server that RUNPOD_ENDPOINT_BASE_URL names."""
    return _runpod(settings, settings.runpod.jobs_url)


def _runpod(settings: "Settings", base_url: str) -> "ManagementApi":
    from comfypin.http.client import HttpClient
    from comfypin.runpod.errors import ApiKeyMissing
    from comfypin.runpod.management_api import ManagementApi

    if settings.runpod.api_key is None:
        raise ApiKeyMissing
    client = HttpClient(transport=http_transport(settings, timeout_s=60.0))
    return ManagementApi(key=settings.runpod.api_key, base_url=base_url, client=client)


def volume_bucket(volume_id: str, data_center: str, settings: "Settings") -> "VolumeBucket":
    """A network volume through its S3 API, with the environment's keys for it. Raises `VolumeKeysMissing`."""
    from comfypin.http.proxies import Proxies
    from comfypin.runpod.errors import VolumeKeysMissing
    from comfypin.runpod.volume_bucket import VolumeBucket
    from comfypin.storage.s3_settings import S3Credentials, S3Settings

    runpod = settings.runpod
    if runpod.s3_access_key is None or runpod.s3_secret_key is None:
        raise VolumeKeysMissing
    keys = S3Credentials(access_key_id=runpod.s3_access_key, secret_access_key=runpod.s3_secret_key)
    endpoint = runpod.volumes_url.replace("{dc}", data_center.lower())
    volume = S3Settings(
        bucket=volume_id,
        endpoint=endpoint,
        region=data_center,
        credentials=keys,
        proxies=Proxies.from_variables(settings.variables),
        is_jobs_own=True,
    )
    return VolumeBucket(volume)
