"""Failures of asking a server for jobs; each names the server, and what to type."""

from comfypin.errors import Cancelled, ConfigError, OutputError, PromptError, RemoteError, UsageError, declare

KNOWN_SERVERS = (
    "comfypin serve (http://HOST:8000), a Runpod endpoint (runpod://ENDPOINT_ID) or Comfy API v2 (https://HOST/api/v2)"
)


class ServerNotNamed(UsageError):
    """Raised if neither a flag nor the environment names a server."""

    def __init__(self) -> None:
        super().__init__(f"No server is named: give --server URL, or set COMFYPIN_SERVER. It may be {KNOWN_SERVERS}.")


@declare
class ServerAddressInvalid(UsageError):
    """Raised if an address cannot be that of a server of jobs."""

    template = "--server (or COMFYPIN_SERVER) is {address!r}: {reason}. It may be " + KNOWN_SERVERS + "."
    address: str
    reason: str


@declare
class TokenMissing(ConfigError):
    """Raised if a server asks for a token, and none is set."""

    template = "{server} asks for a token, and {variable} is not set; export it."
    server: str
    variable: str


@declare
class TokenRefused(ConfigError):
    """Raised if a server does not take the token."""

    template = "{server} refused the token in {variable} (HTTP {status}); export the one of this server."
    server: str
    variable: str
    status: int


@declare
class TokenExposed(ConfigError):
    """Raised instead of sending a token over a network in the clear."""

    template = (
        "The token in {variable} is not sent to {server}: http:// would show it to the network. Use https://, or a "
        "tunnel to a port of this machine (ssh -L 8000:localhost:8000 HOST) and http://127.0.0.1:8000."
    )
    server: str
    variable: str


@declare
class ServerUnreachable(RemoteError):
    """Raised if a server does not answer, or breaks off; `_was_sent` says whether it may have acted."""

    template = "{server} cannot be reached: {reason}; check its address, and that it runs."
    server: str
    reason: str
    _was_sent: bool = False
    _is_transient: bool = True

    @property
    def is_transient(self) -> bool:
        """Return whether another try may help."""
        return self._is_transient

    @property
    def was_sent(self) -> bool:
        """Return whether the server may have acted on the request."""
        return self._was_sent


@declare
class ServerRefused(RemoteError):
    """Raised if a server answers a request with a failure."""

    template = "{server} refused {request} with HTTP {status}: {reason}"
    server: str
    request: str
    status: int
    reason: str
    _retry_after_s: float | None = None

    @property
    def is_transient(self) -> bool:
        """Return whether another try may help."""
        return self.status in {408, 425, 429} or self.status >= 500

    @property
    def retry_after_s(self) -> float | None:
        """Return the delay that the server asks for."""
        return self._retry_after_s


@declare
class ServerUnknown(RemoteError):
    """Raised if whatever answers is not a known server of jobs."""

    template = (
        "{server} is no server of jobs that comfypin knows: {reason}. It may be " + KNOWN_SERVERS + "; for a ComfyUI "
        "that runs without one, use `comfypin run --engine-url`."
    )
    server: str
    reason: str


@declare
class JobNotFound(RemoteError):
    """Raised if a server has no such job."""

    template = "{server} has no job {job_id!r}: the id is wrong, or the job ended so long ago that it is not kept."
    server: str
    job_id: str


@declare
class SubmissionUnknown(RemoteError):
    """Raised if nobody knows whether a job was taken."""

    template = (
        "The connection to {server} broke while the job was sent ({reason}), so it may have been taken; look before "
        "you send it again (`comfypin jobs ls`)."
    )
    server: str
    reason: str


@declare
class NotOffered(RemoteError):
    """Raised if a server's API has no way to do what was asked."""

    template = "{server} ({api}) {reason}."
    server: str
    api: str
    reason: str


@declare
class InputsTooLarge(UsageError):
    """Raised if a job with its files is more than the server takes."""

    template = (
        "The job has {size_bytes} bytes with its files, and {server} takes {limit_bytes}; put large files into a "
        "bucket and name them by address: --input NODE=https://... (or of a bucket, such as s3://...)."
    )
    server: str
    size_bytes: int
    limit_bytes: int


@declare
class WorkflowNotTaken(UsageError):
    """Raised if the workflow or a flag cannot be sent to a server of this API."""

    template = "Comfy API v2 {reason}."
    reason: str


@declare
class RemoteJobFailed(PromptError):
    """Raised if a job did not complete."""

    template = "Job {job_id} ended as {status}: {reason}"
    job_id: str
    status: str
    reason: str
    server: str


@declare
class RemoteJobTimedOut(PromptError):
    """Raised if a job took longer than it was allowed."""

    exit_code = 22
    template = "Job {job_id} ended as {status}: {reason}"
    job_id: str
    status: str
    reason: str
    server: str


@declare
class WaitedLongEnough(PromptError):
    """Raised if a job has not ended within --timeout; it goes on."""

    exit_code = 22
    template = (
        "Job {job_id} is still {status} after {timeout_s:g} s, and goes on; watch it with `comfypin jobs watch "
        "{job_id} --server {server}`, or cancel it with `comfypin jobs cancel {job_id} --server {server}`."
    )
    job_id: str
    status: str
    timeout_s: float
    server: str


@declare
class FollowingStopped(Cancelled):
    """Raised if a signal ended the following of a job; the job itself goes on."""

    template = (
        "Stopped following; job {job_id} goes on. Watch it with `comfypin jobs watch {job_id} --server {server}`, or "
        "cancel it with `comfypin jobs cancel {job_id} --server {server}`."
    )
    job_id: str
    server: str


@declare
class FollowingTerminated(Cancelled):
    """Raised if SIGTERM or a hung-up terminal ended the following of a job; the job itself goes on."""

    exit_code = 143
    template = FollowingStopped.template
    job_id: str
    server: str


@declare
class OutputNotFetched(OutputError):
    """Raised if an output of a job cannot be fetched, or is not what the server said; others may have been saved."""

    template = "Output {filename!r} could not be saved: {reason}. Try again: comfypin jobs download."
    filename: str
    reason: str
