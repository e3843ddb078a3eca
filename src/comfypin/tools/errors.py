"""Failures of the tools we call: not installed, out of time, or refused by git or uv."""

from collections.abc import Sequence

from comfypin.errors import EnvError, declare


@declare
class ToolMissing(EnvError):
    """A program that is needed is not on this machine."""

    template = "The program {tool} is not installed here; {remedy}."
    tool: str
    remedy: str


@declare
class ToolTimedOut(EnvError):
    """A program did not end in time and was killed."""

    template = (
        "{tool} (in {where}) did not end within {timeout_s:g} s and was stopped. Check the network and try again."
    )
    tool: str
    timeout_s: float
    where: str


@declare
class RepoUnreachable(EnvError):
    """A git repository cannot be reached."""

    template = "The repository {repo} cannot be reached ({reason}). Check the address and the network."
    repo: str
    reason: str


@declare
class CommitMissing(EnvError):
    """A repository does not have the requested commit."""

    template = (
        "The repository {repo} does not have commit {commit} ({reason}); a force-push may have removed it. Use a "
        "vendor folder or a fork that has it, or lock another commit."
    )
    repo: str
    commit: str
    reason: str


@declare
class CommitNotHere(EnvError):
    """Offline, and neither the cache nor the vendor folder has a commit."""

    template = (
        "Commit {commit} of {repo} is not on this machine (looked in {listed}), and --offline forbids fetching it. "
        "Run once with a network, or give --vendor a folder made by comfypin lock vendor."
    )
    repo: str
    commit: str
    searched: Sequence[str]

    @property
    def listed(self) -> str:
        return ", ".join(self.searched)


@declare
class TreeIncomplete(EnvError):
    """A repository has a commit, but not all of its files."""

    template = (
        "The repository {repo} has commit {commit}, but not the content of {path}. That copy is damaged: fetch from "
        "another one."
    )
    repo: str
    commit: str
    path: str


@declare
class TreeRefused(EnvError):
    """A commit holds something that git alone cannot turn into files: an LFS pointer, a link that leads out."""

    template = "{path} in {repo} at {short_commit} cannot be checked out: {reason}."
    repo: str
    commit: str
    path: str
    reason: str

    @property
    def short_commit(self) -> str:
        return self.commit[:12]


@declare
class PatchUnfit(EnvError):
    """The lock's patch for a commit does not apply to it."""

    template = (
        "The lock's patch for {repo} does not apply to its commit: {reason}. Capture the release again, or remove "
        "the patch from the lock."
    )
    repo: str
    reason: str


@declare
class RefMissing(EnvError):
    """A repository has no branch, tag or commit of the requested name."""

    template = "The repository {repo} has no branch, tag or commit {ref!r}; {hint}"
    repo: str
    ref: str
    near: Sequence[str]

    @property
    def hint(self) -> str:
        if self.near:
            return f"did you mean {' or '.join(self.near)}?"
        return "give a branch, a tag or a commit (7 to 40 hex digits)."


@declare
class RefAmbiguous(EnvError):
    """A repository has a branch and a tag of one name, or several commits that begin alike."""

    template = "In the repository {repo}, {ref!r} may mean {listed}; give one in full."
    repo: str
    ref: str
    names: Sequence[str]

    @property
    def listed(self) -> str:
        return " or ".join(self.names)


@declare
class CheckoutUnreadable(EnvError):
    """Git cannot read the state of a checkout."""

    template = "Git cannot read the checkout {folder}: {reason}."
    folder: str
    reason: str


@declare
class UvFailed(EnvError):
    """uv failed for a reason other than a conflict of requirements."""

    template = "uv could not {doing}: {reason}"
    doing: str
    reason: str


@declare
class DownloadFailed(EnvError):
    """A file cannot be downloaded."""

    template = "{url} cannot be downloaded: {reason}."
    url: str
    reason: str


@declare
class DownloadWrong(EnvError):
    """A downloaded file does not match the expected sha256."""

    template = (
        "{url} has sha256 {actual}, but {expected} is expected; nothing of it was kept. It was replaced at its "
        "source, or damaged on the way."
    )
    url: str
    expected: str
    actual: str
