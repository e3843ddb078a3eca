"""Failures of putting a release on Runpod: the file, the rules, the API, a volume, or a job sent to an endpoint."""

from collections.abc import Mapping, Sequence

from comfypin.errors import DeployError, declare
from comfypin.plurals import format_size


@declare
class DeploymentInvalid(DeployError):
    """runpod.toml says something that Runpod, or safety, does not allow; every finding at once."""

    template = "{path} cannot be applied:{lines}"
    path: str
    findings: Sequence[str]

    @property
    def lines(self) -> str:
        """Return the findings, one a line."""
        return _bullet_lines(self.findings)


@declare
class HubInvalid(DeployError):
    """A file for Runpod's Hub has a field that the Hub does not know, or lacks one; every finding at once."""

    template = "{path} would not be taken by Runpod's Hub:{lines}"
    path: str
    findings: Sequence[str]

    @property
    def lines(self) -> str:
        """Return the findings, one a line."""
        return _bullet_lines(self.findings)


class ApiKeyMissing(DeployError):
    """No Runpod API key is configured."""

    exit_code = 3

    def __init__(self) -> None:
        super().__init__(
            "RUNPOD_API_KEY is not set; make a key in Runpod's console (Settings, API Keys) and export it."
        )


@declare
class ApiRefused(DeployError):
    """Runpod answered a request with an error (RFC 9457); `status` is the HTTP status."""

    template = "Runpod refused {request} with {status} {title}: {detail}{more}{advice}"
    request: str
    status: int
    title: str
    detail: str
    errors: Sequence[str] = ()

    @property
    def more(self) -> str:
        """Return Runpod's list of errors in parentheses."""
        return f" ({'; '.join(self.errors)})" if self.errors else ""

    @property
    def advice(self) -> str:
        """Return what to do about this status."""
        # The edge took Runpod's key, and the worker behind it refused the token.
        if self.status == 401 and "X-Comfypin-Token" in self.detail:
            return " COMFYPIN_TOKEN must be the one that the workers have."
        return _STATUS_ADVICE.get(self.status, "")


@declare
class NoPodPlaced(DeployError):
    """Runpod has no place for a pod of a fleet now, on none of the GPUs that were tried."""

    template = "Runpod has no place for a pod now; name other GPUs with --gpu, another --cloud, or try later:{lines}"
    refusals: Sequence[str]

    @property
    def lines(self) -> str:
        """Return the refusals, one a line."""
        return _bullet_lines(self.refusals)


@declare
class ApiUnreachable(DeployError):
    """Runpod's API could not be reached, or its response was cut off, after all tries."""

    template = "Runpod did not answer {request}: {reason}. Try again."
    request: str
    reason: str


@declare
class NotOurs(DeployError):
    """A resource of that name exists and does not carry this deployment's mark."""

    template = (
        "A {kind} named {name!r} ({id}) already exists and was not made by this deployment; rename yours in "
        "runpod.toml, or delete the other one."
    )
    kind: str
    name: str
    id: str


@declare
class EndpointJobFailed(DeployError):
    """A job sent to an endpoint did not complete."""

    exit_code = 21
    template = "Job {job_id} ended as {status}: {error}"
    job_id: str
    status: str
    error: str


@declare
class JobTooLarge(DeployError):
    """A job's workflow and input files are more than an endpoint takes."""

    exit_code = 64
    template = (
        "The job has {size_bytes} bytes and Runpod takes {limit_bytes}; put large inputs into a bucket and name them "
        "by address: --input NODE=https://... (or of a bucket, such as s3://...)."
    )
    size_bytes: int
    limit_bytes: int


@declare
class WaitedTooLong(DeployError):
    """Something on Runpod did not become ready in the time allowed."""

    exit_code = 22
    template = (
        "{what} was not ready within {timeout_s:g} s ({state}); look at its logs in Runpod's console, or wait longer "
        "with --timeout."
    )
    what: str
    timeout_s: float
    state: str


@declare
class VolumeUnknown(DeployError):
    """The account has no network volume of that name or id."""

    template = (
        "The account has no network volume {wanted!r}{place}; it has {known_names}. Name one of them or its id, or "
        "make it: a [[volume]] in runpod.toml and `comfypin runpod apply`."
    )
    wanted: str
    centers: Sequence[str]
    known: Sequence[str]

    @property
    def place(self) -> str:
        """Return the data centres that were looked at."""
        return f" in {', '.join(self.centers)}" if self.centers else ""

    @property
    def known_names(self) -> str:
        """Return the volumes of the account."""
        return ", ".join(self.known) or "none"


class VolumeKeysMissing(DeployError):
    """No keys for the volumes' S3 API are configured; Runpod's API key is not one."""

    exit_code = 3

    def __init__(self) -> None:
        super().__init__(
            "RUNPOD_S3_ACCESS_KEY and RUNPOD_S3_SECRET_KEY are not set; make an S3 API key in Runpod's console "
            "(Settings, S3 API Keys) and export both. It is not the same as RUNPOD_API_KEY."
        )


@declare
class VolumeTooSmall(DeployError):
    """A release does not fit on the volume."""

    template = (
        "Volume {volume} has {size_gb} GB, of which releases use {used}, and this push needs {needed} "
        "more; grow it (`size` in runpod.toml, then `comfypin runpod apply`), or remove releases: "
        "`comfypin runpod volume gc`."
    )
    volume: str
    needed_bytes: int
    used_bytes: int
    size_gb: int

    @property
    def used(self) -> str:
        """Return what releases use."""
        return format_size(self.used_bytes)

    @property
    def needed(self) -> str:
        """Return what the push needs."""
        return format_size(self.needed_bytes)


@declare
class VolumePathTaken(DeployError):
    """Another release's file is at the path of a file of this one."""

    template = (
        "On volume {volume}, {key} holds a different file, of {owner}; give the model another target_path in the lock, "
        "or push with --overwrite."
    )
    volume: str
    key: str
    owner: str


@declare
class VolumePushFailed(DeployError):
    """Some volumes could not be brought up to date; the others were."""

    template = "{count} of {total} volumes failed; push again to go on from there:{lines}"
    failures: Sequence[Mapping[str, str]]
    total: int

    @property
    def count(self) -> int:
        """Return how many volumes failed."""
        return len(self.failures)

    @property
    def lines(self) -> str:
        """Return each volume with its reason, one a line."""
        return _bullet_lines([f"{failure['volume']}: {failure['reason']}" for failure in self.failures])


@declare
class VolumeDiffers(DeployError):
    """A volume does not hold what was recorded when a release was pushed to it."""

    template = "Volume {volume} does not hold what was pushed; `comfypin runpod volume push` repairs it:{lines}"
    volume: str
    findings: Sequence[str]

    @property
    def lines(self) -> str:
        """Return the findings, one a line."""
        return _bullet_lines(self.findings)


@declare
class UploadGone(DeployError):
    """An upload in parts was completed or aborted meanwhile, by another process."""

    template = "The upload of {uri} in parts no longer exists; push again."
    uri: str


@declare
class PlatformUnfit(DeployError):
    """An env that is made on this machine would not run on Runpod's."""

    template = (
        "Runpod's machines are linux-x86_64 and this one is {platform}, so its env pack would not run there; push from "
        "Linux, or push the models only with --no-env (an image holds its own env)."
    )
    platform: str


_STATUS_ADVICE = {
    401: " Check RUNPOD_API_KEY.",
    403: " The key lacks the permission; make one with read and write access.",
    402: " The account's balance is used up; add credit, then apply again.",
    404: " It may have been deleted meanwhile; run `comfypin runpod plan` again.",
    409: " Something else is changing it; wait a moment and apply again.",
    413: " Runpod takes requests of 100 KB: shorten `env`, `cmd` or `args`.",
    429: " The account's request quota is used up; wait and apply again.",
}


def _bullet_lines(findings: Sequence[str]) -> str:
    return "".join(f"\n  - {finding}" for finding in findings)
