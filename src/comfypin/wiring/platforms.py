"""Container builders and RunPod: its API, its jobs, its volumes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfypin.deploy.api import Api
    from comfypin.deploy.volume_bucket import VolumeBucket
    from comfypin.image.interface import ContainerBuilder
    from comfypin.settings import RunpodSettings


def open_builder(wanted: str) -> "ContainerBuilder":
    """What builds images here: the one that is named, or with `auto` the first that works. Raises `NoBuilder`."""
    from comfypin.errors.image import NoBuilder
    from comfypin.image.buildah import Buildah, store_answers
    from comfypin.image.docker import Docker, docker_answers
    from comfypin.image.podman import Podman

    builders: dict[str, tuple[Callable[[], str | None], Callable[[], ContainerBuilder]]] = {
        "docker": (docker_answers, Docker),
        "buildah": (lambda: store_answers("buildah"), Buildah),
        "podman": (lambda: store_answers("podman"), Podman),
    }
    tried = []
    for why_not, make in [builders[wanted]] if wanted != "auto" else builders.values():
        if (reason := why_not()) is None:
            return make()
        tried.append(reason)
    raise NoBuilder(tried=tried)


def runpod_api() -> "Api":
    """RunPod's management API with the environment's key. Raises `ApiKeyMissing`."""
    from comfypin.settings import RunpodSettings

    settings = RunpodSettings.from_environment()
    return _runpod(settings, settings.api_url)


def runpod_jobs_api() -> "Api":
    """The job API of RunPod's endpoints, or of the server that RUNPOD_ENDPOINT_BASE_URL names."""
    from comfypin.settings import RunpodSettings

    settings = RunpodSettings.from_environment()
    return _runpod(settings, settings.jobs_url)


def _runpod(settings: "RunpodSettings", base_url: str) -> "Api":
    from comfypin.deploy.api import Api
    from comfypin.errors.deploy import ApiKeyMissing

    if settings.api_key is None:
        raise ApiKeyMissing
    return Api(key=settings.api_key, base_url=base_url)


def volume_bucket(volume_id: str, data_center: str) -> "VolumeBucket":
    """A network volume through its S3 API, with the environment's keys for it. Raises `VolumeKeysMissing`."""
    from comfypin.deploy.volume_bucket import VolumeBucket
    from comfypin.errors.deploy import VolumeKeysMissing
    from comfypin.settings import RunpodSettings, Settings
    from comfypin.storage.proxy import Proxies
    from comfypin.storage.s3_settings import S3Credentials, S3Settings

    settings = RunpodSettings.from_environment()
    if settings.s3_access_key is None or settings.s3_secret_key is None:
        raise VolumeKeysMissing
    keys = S3Credentials(access_key_id=settings.s3_access_key, secret_access_key=settings.s3_secret_key)
    endpoint = settings.volumes_url.replace("{dc}", data_center.lower())
    volume = S3Settings(
        bucket=volume_id,
        endpoint=endpoint,
        region=data_center,
        credentials=keys,
        proxies=Proxies.from_variables(Settings.from_environment().environ),
        is_jobs_own=True,
    )
    return VolumeBucket(volume)
