"""Failures of one job before it runs, or by a mistake of ours."""

from collections.abc import Sequence

from comfypin.errors import ComfypinError, WorkflowError, declare


@declare
class JobInvalid(WorkflowError):
    """A job's input is not what docs/job.schema.json describes; every finding at once."""

    template = "The job's input is invalid:{lines}"
    findings: Sequence[str]

    @property
    def lines(self) -> str:
        """Return the findings, one a line."""
        return "".join(f"\n  - {finding}" for finding in self.findings)


@declare
class ReleaseUnavailable(WorkflowError):
    """The job asks for a release that this worker does not run."""

    template = (
        "This worker runs the release {running}, not {wanted}; send the job to an endpoint of that release, "
        "or leave `release` out.{_doubt}"
    )
    wanted: str
    running: str
    _doubt: str = ""


@declare
class ApiNodesLeftOut(WorkflowError):
    """The job's workflow has API nodes, and the engine was started without them."""

    template = (
        "The workflow uses ComfyUI's API nodes ({classes}), and this engine was started without them, because no "
        "workflow of its release has any; set COMFYPIN_API_NODES=on on the worker or endpoint."
    )
    classes: str


@declare
class InputUnusable(WorkflowError):
    """An input file of the job cannot be used: too large, too slow, refused, or not what it claims to be."""

    template = "The input {name!r} cannot be used: {reason}."
    name: str
    reason: str


@declare
class JobBroken(ComfypinError):
    """Our own mistake ended the job; the log has its traceback."""

    template = "The job met an internal error ({kind}), which is our mistake; the worker's log has its traceback."
    kind: str
