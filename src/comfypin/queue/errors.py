"""Failures of keeping jobs: the queue is full, the job is unknown, or its file cannot be used."""

from comfypin.errors import ComfypinError, ConfigError, LeaseError, declare


@declare
class JobsUnusable(ConfigError):
    """A server cannot start, because the folder for its jobs cannot be used."""

    template = (
        "The jobs cannot be kept in {path}: {reason}. Name a local folder that can be written: --state-dir or "
        "COMFYPIN_STATE_DIR."
    )
    path: str
    reason: str


@declare
class JobsNotStored(ComfypinError):
    """The disk refuses to store jobs, or to read them, while the server runs. Clients read this."""

    template = "The server cannot store jobs now: {reason}. Try again later."
    reason: str


@declare
class AlreadyServing(LeaseError):
    """Another server works on the same jobs."""

    template = "Another server has the jobs in {path} ({holder}); stop it, or name another folder with --state-dir."
    path: str
    holder: str


@declare
class RouteUnknown(ComfypinError):
    """No worker of this queue serves what a job asks for. Clients read this."""

    template = "The job asks for the {what} {shown}, which this server does not know; it serves {known}."
    what: str
    name: str
    known: str

    @property
    def shown(self) -> str:
        """Return the name, shortened: it is a stranger's text."""
        return repr(self.name[:100])


@declare
class QueueFull(ComfypinError):
    """As many jobs wait as the server takes; try again later."""

    template = "{waiting} jobs wait already, which is as many as this server takes; try again in {retry_after_s} s."
    waiting: int
    retry_after_s: int


@declare
class JobTimedOut(ComfypinError):
    """The job was given up: its policy allows no more time, or the server never survived it."""

    template = "The job {reason}."
    reason: str


@declare
class JobUnknown(ComfypinError):
    """No job of this id is known: it was never taken, or its result was kept long enough."""

    template = "This server has no job {shown}. Results are kept for a while only."
    job_id: str

    @property
    def shown(self) -> str:
        """Return the id, shortened: it is a stranger's text."""
        return repr(self.job_id[:100])


@declare
class WebhookNotKept(ComfypinError):
    """A post to a webhook cannot be tried again."""

    template = "The webhook's post {number} cannot be tried again: {reason}."
    number: int
    reason: str


@declare
class NotReordered(ComfypinError):
    """The queue does not change the order of jobs that wait."""

    template = (
        "The job {job_id} keeps its place: a fleet cannot move a job that waits. Send it anew with `policy.priority`."
    )
    job_id: str


@declare
class RetryRefused(ComfypinError):
    """The job cannot be run again as it stands."""

    template = "The job {job_id} cannot be run again: {reason}."
    job_id: str
    reason: str
