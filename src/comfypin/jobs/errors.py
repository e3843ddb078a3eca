"""Failures of one job before it runs, or by a mistake of ours."""

from collections.abc import Sequence

from comfypin.errors import ComfypinError, WorkflowError


class JobInvalid(WorkflowError):
    """A job's input is not what docs/job.schema.json describes; every finding at once."""

    def __init__(self, *, findings: Sequence[str]) -> None:
        lines = "".join(f"\n  - {finding}" for finding in findings)
        super().__init__(f"The job's input cannot be taken:{lines}", findings=list(findings))
        self.findings = tuple(findings)


class ReleaseUnavailable(WorkflowError):
    """The job asks for a release that this worker does not run."""

    def __init__(self, *, wanted: str, running: str) -> None:
        super().__init__(
            f"This worker runs the release {running}, not {wanted}; send the job to an endpoint of that release, "
            "or leave `release` out.",
            wanted=wanted,
            running=running,
        )


class InputUnusable(WorkflowError):
    """An input file of the job cannot be had: too big, too slow, refused, not what it says."""

    def __init__(self, *, name: str, reason: str) -> None:
        super().__init__(f"The input {name!r} cannot be used: {reason}.", name=name, reason=reason)


class JobBroken(ComfypinError):
    """The job met a mistake of ours; the log has its traceback."""

    def __init__(self, *, cause: Exception) -> None:
        kind = type(cause).__name__
        super().__init__(f"The job met an internal error ({kind}); the worker's log has its traceback.", kind=kind)
