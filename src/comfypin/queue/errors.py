"""Failures of keeping jobs: the queue is full, the job is unknown, or its file cannot be used."""

from comfypin.errors import ComfypinError, ConfigError, LeaseError


class JobsUnusable(ConfigError):
    """The file that jobs are stored in cannot be used."""

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(
            f"The jobs cannot be kept in {path}: {reason}. Name a local folder that can be written: "
            "COMFYPIN_STATE_DIR or --state-dir.",
            path=path,
            reason=reason,
        )


class AlreadyServing(LeaseError):
    """Another server works on the same jobs."""

    def __init__(self, *, path: str, holder: str) -> None:
        super().__init__(
            f"Another server has the jobs in {path} ({holder}); stop it, or name another --state-dir.", path=path
        )


class QueueFull(ComfypinError):
    """As many jobs wait as the server takes; try again later."""

    def __init__(self, *, waiting: int, retry_after_s: int) -> None:
        super().__init__(f"{waiting} jobs wait already; try again in {retry_after_s} s.", waiting=waiting)
        self.retry_after_s = retry_after_s


class JobTimedOut(ComfypinError):
    """The job's policy did not give it more time."""


class JobUnknown(ComfypinError):
    """No job of this id is known: never taken, or its result was kept long enough."""

    def __init__(self, *, job_id: str) -> None:
        super().__init__(f"There is no job {job_id[:100]!r} here (results are kept for a while, then they go).")


class RetryRefused(ComfypinError):
    """The job cannot be run again as it stands."""

    def __init__(self, *, job_id: str, reason: str) -> None:
        super().__init__(f"The job {job_id} cannot be run again: {reason}.")
