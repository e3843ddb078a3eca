"""Container builders, and Runpod's API, jobs and volumes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from comfypin.wiring.network import http_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from comfypin.image.interface import ContainerBuilder, Report
    from comfypin.runpod.management_api import ManagementApi
    from comfypin.runpod.volume_bucket import VolumeBucket
    from comfypin.settings.environment import Settings


def open_builder(builder_name: str, *, report: "Report") -> "ContainerBuilder":
    """Return the named image builder, or with `auto` the first one that builds, after telling why not another.

    Raises `NoBuilder`.
    """
    from comfypin.image.errors import NoBuilder

    reasons: list[str] = []
    for candidate in _builder_candidates(builder_name):
        # By trying: one that answers may still not build.
        reason = candidate.why_unusable() or candidate.why_unbuilding()
        if reason is None:
            builder = candidate.open()
            # That one is not installed surprises nobody.
            if refusals := [reason for reason in reasons if not reason.endswith("not installed")]:
                report(f"{'; '.join(refusals)}; building with {builder.name}.")
            return builder
        reasons.append(reason)
    raise NoBuilder(tried=reasons)


def open_builder_of(image_tag: str, builder_name: str) -> "ContainerBuilder":
    """Return the named builder, or with `auto` the first one that has the image. Raises `NoBuilder`, `NoSuchImage`."""
    from comfypin.image.errors import NoBuilder, NoSuchImage

    reasons: list[str] = []
    missing: NoSuchImage | None = None
    for candidate in _builder_candidates(builder_name):
        if (reason := candidate.why_unusable()) is not None:
            reasons.append(reason)
            continue
        builder = candidate.open()
        try:
            builder.inspect(image_tag)
        # Each has a store of its own, and the image may have been built by the next one.
        except NoSuchImage as no_such_image:
            missing = missing or no_such_image
            continue
        return builder
    if missing is not None:
        raise missing
    raise NoBuilder(tried=reasons)


@dataclass(frozen=True, slots=True)
class _BuilderCandidate:
    why_unusable: "Callable[[], str | None]"
    why_unbuilding: "Callable[[], str | None]"
    open: "Callable[[], ContainerBuilder]"


def _builder_candidates(builder_name: str) -> "Iterable[_BuilderCandidate]":
    """Return the builder of this name, or with `auto` all of them in the order in which they are tried."""
    from comfypin.image.buildah import Buildah, explain_store_cannot_build, explain_store_unusable
    from comfypin.image.docker import Docker, explain_docker_cannot_build, explain_docker_unusable
    from comfypin.image.podman import Podman

    def in_store(program: str, open_one: "Callable[[], ContainerBuilder]") -> _BuilderCandidate:
        return _BuilderCandidate(
            lambda: explain_store_unusable(program), lambda: explain_store_cannot_build(program), open_one
        )

    candidates = {
        "docker": _BuilderCandidate(explain_docker_unusable, explain_docker_cannot_build, Docker),
        "buildah": in_store("buildah", Buildah),
        "podman": in_store("podman", Podman),
    }
    return candidates.values() if builder_name == "auto" else [candidates[builder_name]]


def open_runpod_api(settings: "Settings") -> "ManagementApi":
    """Return Runpod's management API with the environment's key. Raises `ApiKeyMissing`."""
    return _open_runpod_api(settings, settings.runpod.api_url)


def open_runpod_jobs_api(settings: "Settings") -> "ManagementApi":
    """Return the job API of Runpod's endpoints, or of the server that RUNPOD_ENDPOINT_BASE_URL names."""
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
    from comfypin.storage.s3_setting_names import S3SettingNames
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
        names=S3SettingNames(
            endpoint="RUNPOD_S3_URL",
            access_key_id="RUNPOD_S3_ACCESS_KEY",
            secret_access_key="RUNPOD_S3_SECRET_KEY",  # noqa: S106  # a variable's name
        ),
    )
    return VolumeBucket(bucket_settings)
