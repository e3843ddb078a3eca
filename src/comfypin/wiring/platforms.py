"""Container builders, and RunPod's API, jobs and volumes."""

from typing import TYPE_CHECKING

from comfypin.wiring.network import http_transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfypin.image.interface import ContainerBuilder
    from comfypin.runpod.management_api import ManagementApi
    from comfypin.runpod.volume_bucket import VolumeBucket
    from comfypin.settings.environment import Settings


def open_builder(builder_name: str) -> "ContainerBuilder":
    """Return the named image builder, or with `auto` the first one that works. Raises `NoBuilder`."""
    from comfypin.image.buildah import Buildah, explain_store_unusable
    from comfypin.image.docker import Docker, explain_docker_unusable
    from comfypin.image.errors import NoBuilder
    from comfypin.image.podman import Podman

    # In the order that `auto` tries them.
    builders: dict[str, tuple[Callable[[], str | None], Callable[[], ContainerBuilder]]] = {
        "docker": (explain_docker_unusable, Docker),
        "buildah": (lambda: explain_store_unusable("buildah"), Buildah),
        "podman": (lambda: explain_store_unusable("podman"), Podman),
    }
    reasons = []
    for why_not, open_one in [builders[builder_name]] if builder_name != "auto" else builders.values():
        if (reason := why_not()) is None:
            return open_one()
        reasons.append(reason)
    raise NoBuilder(tried=reasons)


def open_runpod_api(settings: "Settings") -> "ManagementApi":
    """Return RunPod's management API with the environment's key. Raises `ApiKeyMissing`."""
    return _open_runpod_api(settings, settings.runpod.api_url)


def open_runpod_jobs_api(settings: "Settings") -> "ManagementApi":
    """Return the job API of RunPod's endpoints, or of the server that RUNPOD_ENDPOINT_BASE_URL names."""
    return _open_runpod_api(settings, settings.runpod.jobs_url)


def open_balanced_jobs_api(settings: "Settings", address: str) -> "ManagementApi":
    """Return the job API of the workers behind a load balancer. Raises `ApiKeyMissing`, `ConfigError`."""
    from comfypin.runpod.load_balancer import balanced_jobs

    return balanced_jobs(open_runpod_api(settings), address, token=settings.server.token)


def _open_runpod_api(settings: "Settings", base_url: str) -> "ManagementApi":
    from comfypin.http.client import HttpClient
    from comfypin.runpod.errors import ApiKeyMissing
    from comfypin.runpod.management_api import ManagementApi

    if settings.runpod.api_key is None:
        raise ApiKeyMissing
    client = HttpClient(transport=http_transport(settings, timeout_s=60.0))
    return ManagementApi(key=settings.runpod.api_key, base_url=base_url, client=client)


def open_volume_bucket(volume_id: str, data_center: str, settings: "Settings") -> "VolumeBucket":
    """Return a network volume through its S3 API, with the environment's keys. Raises `VolumeKeysMissing`."""
    from comfypin.http.proxies import Proxies
    from comfypin.runpod.errors import VolumeKeysMissing
    from comfypin.runpod.volume_bucket import VolumeBucket
    from comfypin.storage.s3_settings import S3Credentials, S3Settings

    runpod_settings = settings.runpod
    if runpod_settings.s3_access_key is None or runpod_settings.s3_secret_key is None:
        raise VolumeKeysMissing
    keys = S3Credentials(access_key_id=runpod_settings.s3_access_key, secret_access_key=runpod_settings.s3_secret_key)
    # Host names have the data centre in lower case.
    endpoint = runpod_settings.volumes_url.replace("{dc}", data_center.lower())
    bucket_settings = S3Settings(
        bucket=volume_id,
        endpoint=endpoint,
        region=data_center,
        credentials=keys,
        proxies=Proxies.from_variables(settings.variables),
        # The keys are of this volume alone: the S3 variables of the environment do not apply.
        is_jobs_own=True,
    )
    return VolumeBucket(bucket_settings)
