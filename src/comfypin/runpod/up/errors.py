"""Failures of `comfypin runpod up`: what it cannot know, what cannot be had, and a volume that was not filled."""

from collections.abc import Mapping, Sequence

from comfypin.errors import DeployError, LockError, declare, indent_lines


@declare
class UpUndecided(LockError):
    """Something that only the user can say is open; every finding at once, each with its candidates and its flag.

    `plan` is what could be planned without it, if only that was asked.
    """

    template = "For {source}, this is left open and only you can say it; nothing was made.{listed}"
    source: str
    findings: Sequence[str]
    plan: Mapping[str, object] | None = None

    @property
    def listed(self) -> str:
        """Return the findings, one a line."""
        return indent_lines(self.findings, at_most=50)


@declare
class NoPlaceAvailable(DeployError):
    """No GPU that fits is available where the deployment could be."""

    template = "No GPU for this release is available {where}: {reason}.{listed}"
    where: str
    reason: str
    candidates: Sequence[str]

    @property
    def listed(self) -> str:
        """Return what is available instead, one a line."""
        return indent_lines(self.candidates, at_most=20)


@declare
class WorkerImageUnknown(DeployError):
    """Nothing says which image workers run."""

    template = "{reason}; name the worker image with --image NAME@sha256:... (comfypin image push prints it)."
    reason: str


@declare
class LockTooLarge(DeployError):
    """A lock is larger than a variable, and there is no address for it."""

    template = (
        "The lock of {release} is {characters} characters as a variable, of {limit}; put its file where workers can "
        "read it and name the address with --lock-url URL."
    )
    release: str
    characters: int
    limit: int


@declare
class SecretUnset(DeployError):
    """A secret should go to Runpod, and this machine does not have its value."""

    exit_code = 3
    template = (
        "--secret {variable} takes the value of {variable} on this machine, which is not set; export it, or name a "
        "secret that Runpod has: --secret {variable}=NAME."
    )
    variable: str


@declare
class FillFailed(DeployError):
    """The pod that should fill the volume did not."""

    template = "The volume was not filled: {reason}. What is there stays; run the same command again to go on."
    reason: str


@declare
class UpStateUnreadable(DeployError):
    """The file that says what was deployed cannot be read."""

    template = (
        "{path} cannot be read: {reason}; move it away, and the next `comfypin runpod up` finds what exists by name."
    )
    path: str
    reason: str


@declare
class UpBusy(DeployError):
    """Another process works on the same deployment."""

    exit_code = 75
    template = "Another comfypin works on the deployment {name} ({holder}); wait for it, or stop it."
    name: str
    holder: str


@declare
class UpNameUnknown(DeployError):
    """No deployment of this name was made from here."""

    exit_code = 64
    template = "{asked}: {known}."
    asked: str
    names: Sequence[str]

    @property
    def known(self) -> str:
        """Return which deployments there are."""
        return f"name one of {', '.join(self.names)}" if self.names else "`comfypin runpod up WORKFLOW` makes one"


@declare
class ReleaseNumberUnknown(DeployError):
    """A rollback names a release that the history does not have."""

    exit_code = 64
    template = "{name} has no release {wanted} to go back to; it has {known}."
    name: str
    wanted: str
    numbers: Sequence[str]

    @property
    def known(self) -> str:
        """Return the numbers that it has."""
        return ", ".join(self.numbers) or "none"
