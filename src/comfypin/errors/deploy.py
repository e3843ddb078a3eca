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
            f"RunPod refused {request} with {status} {title}: {detail}{more}{_advice(status)}",
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


def _advice(status: int) -> str:
    return {
        401: " Check RUNPOD_API_KEY.",
        403: " The key lacks the permission; make one with read and write access.",
        404: " It may have been deleted meanwhile; run `comfypin runpod plan` again.",
        409: " Something else is changing it; wait a moment and apply again.",
        429: " The account's request quota is used up; wait and apply again.",
    }.get(status, "")
