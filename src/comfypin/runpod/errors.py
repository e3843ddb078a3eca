"""Failures of putting a release on RunPod: the file, the rules, the API, or a job sent to an endpoint."""

from collections.abc import Sequence

from comfypin.errors import DeployError


class DeploymentInvalid(DeployError):
    """runpod.toml says something that RunPod, or safety, does not allow; every finding at once."""

    def __init__(self, *, path: str, findings: Sequence[str]) -> None:
        lines = "".join(f"\n  - {finding}" for finding in findings)
        super().__init__(f"{path} cannot be applied:{lines}", path=path, findings=list(findings))
        self.findings = tuple(findings)


class ApiKeyMissing(DeployError):
    """No RunPod API key is configured."""

    exit_code = 3

    def __init__(self) -> None:
        super().__init__(
            "RUNPOD_API_KEY is not set; make a key in RunPod's console (Settings, API Keys) and export it."
        )


class ApiRefused(DeployError):
    """RunPod answered a request with an error (RFC 9457); `status` is the HTTP status."""

    def __init__(self, *, request: str, status: int, title: str, detail: str, errors: Sequence[str] = ()) -> None:
        more = f" ({'; '.join(errors)})" if errors else ""
        super().__init__(
            f"RunPod refused {request} with {status} {title}: {detail}{more}{_status_advice(status)}",
            request=request,
            status=status,
            detail=detail,
            errors=list(errors),
        )
        self.status = status


class ApiUnreachable(DeployError):
    """RunPod's API could not be reached, or its answer was cut off, after all tries."""

    def __init__(self, *, request: str, reason: str) -> None:
        super().__init__(f"RunPod did not answer {request}: {reason}. Try again.", request=request, reason=reason)


class NotOurs(DeployError):
    """A resource of that name exists and does not carry this deployment's mark."""

    def __init__(self, *, kind: str, name: str, identifier: str) -> None:
        super().__init__(
            f"A {kind} named {name!r} ({identifier}) already exists and was not made by this deployment; "
            "rename yours in runpod.toml, or delete the other one.",
            kind=kind,
            name=name,
            id=identifier,
        )


class EndpointJobFailed(DeployError):
    """A job sent to an endpoint did not complete."""

    exit_code = 21

    def __init__(self, *, job_id: str, status: str, error: str) -> None:
        super().__init__(f"Job {job_id} ended as {status}: {error}", job_id=job_id, status=status, error=error)


class JobTooLarge(DeployError):
    """A job's workflow and input files are more than an endpoint takes."""

    exit_code = 64

    def __init__(self, *, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"The job has {size_bytes} bytes and RunPod takes {limit_bytes}; put large inputs into a bucket and name "
            "them by address: --input NODE=https://... (or of a bucket, such as s3://...).",
            size_bytes=size_bytes,
            limit_bytes=limit_bytes,
        )


class WaitedTooLong(DeployError):
    """Something on RunPod did not become ready in the time allowed."""

    exit_code = 22

    def __init__(self, *, what: str, timeout_s: float, state: str) -> None:
        super().__init__(
            f"{what} was not ready within {timeout_s:g} s ({state}); look at its logs in RunPod's console, "
            "or wait longer with --timeout.",
            timeout_s=timeout_s,
            state=state,
        )


class VolumeUnknown(DeployError):
    """No network volume of the account is what was asked for."""

    def __init__(self, *, wanted: str, centers: Sequence[str], known: Sequence[str]) -> None:
        where = f" in {', '.join(centers)}" if centers else ""
        there = ", ".join(known) or "none"
        super().__init__(
            f"The account has no network volume {wanted!r}{where}; it has {there}. "
            "Name one of them or its id, or make it: a [[volume]] in runpod.toml and `comfypin runpod apply`.",
            wanted=wanted,
            known=list(known),
        )


class VolumeKeysMissing(DeployError):
    """No keys for the volumes' S3 API are configured; RunPod's API key is not one."""

    exit_code = 3

    def __init__(self) -> None:
        super().__init__(
            "RUNPOD_S3_ACCESS_KEY and RUNPOD_S3_SECRET_KEY are not set; make an S3 API key in RunPod's console "
            "(Settings, S3 API Keys) and export both. It is not the same as RUNPOD_API_KEY."
        )


class VolumeTooSmall(DeployError):
    """What is to be pushed does not fit on the volume."""

    def __init__(self, *, volume: str, needed_bytes: int, used_bytes: int, size_gb: int) -> None:
        super().__init__(
            f"Volume {volume} has {size_gb} GB, {used_bytes / 1e9:.1f} GB of it used by releases, and "
            f"{needed_bytes / 1e9:.1f} GB more are to go there; grow it (`size` in runpod.toml, then "
            "`comfypin runpod apply`), or remove releases: `comfypin runpod volume gc`.",
            volume=volume,
            needed_bytes=needed_bytes,
            used_bytes=used_bytes,
            size_gb=size_gb,
        )


class VolumePathTaken(DeployError):
    """Another release's file is where a file of this one has to be."""

    def __init__(self, *, volume: str, key: str, owner: str) -> None:
        super().__init__(
            f"On volume {volume}, {key} has other bytes, of {owner}; give the model another target_path in the lock, "
            "or push with --overwrite.",
            volume=volume,
            key=key,
            owner=owner,
        )


class VolumePushFailed(DeployError):
    """Some volumes could not be brought up to date; the others were."""

    def __init__(self, *, failures: Sequence[tuple[str, str]], total: int) -> None:
        lines = "".join(f"\n  - {volume}: {reason}" for volume, reason in failures)
        super().__init__(
            f"{len(failures)} of {total} volumes failed; push again to go on where it stopped:{lines}",
            failures=[{"volume": volume, "reason": reason} for volume, reason in failures],
        )


class VolumeDiffers(DeployError):
    """A volume does not hold what was recorded when a release was pushed to it."""

    def __init__(self, *, volume: str, findings: Sequence[str]) -> None:
        lines = "".join(f"\n  - {finding}" for finding in findings)
        super().__init__(
            f"Volume {volume} is not what was pushed; `comfypin runpod volume push` mends it:{lines}",
            volume=volume,
            findings=list(findings),
        )


class UploadGone(DeployError):
    """An upload in parts was ended or given up meanwhile, by another process."""

    def __init__(self, *, uri: str) -> None:
        super().__init__(f"The upload of {uri} in parts is no longer there; push again.", uri=uri)


class PlatformUnfit(DeployError):
    """An env that is made on this machine would not run on RunPod's."""

    def __init__(self, *, platform: str) -> None:
        super().__init__(
            f"RunPod's machines are linux-x86_64 and this one is {platform}, so its env pack would not run there; push "
            "from Linux, or push the models only with --no-env (an image holds its own env).",
            platform=platform,
        )


def _status_advice(status: int) -> str:
    return {
        401: " Check RUNPOD_API_KEY.",
        403: " The key lacks the permission; make one with read and write access.",
        404: " It may have been deleted meanwhile; run `comfypin runpod plan` again.",
        409: " Something else is changing it; wait a moment and apply again.",
        429: " The account's request quota is used up; wait and apply again.",
    }.get(status, "")
