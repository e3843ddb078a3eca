"""Failures of the tools we call: not installed, out of time, or git and uv saying no."""

from collections.abc import Sequence

from comfypin.errors import EnvError


class ToolMissing(EnvError):
    """A program that is needed is not on this machine."""

    def __init__(self, *, tool: str, remedy: str) -> None:
        super().__init__(f"The program {tool} is not installed here; {remedy}.", tool=tool)


class ToolTimedOut(EnvError):
    """A program did not end in the time it was given, and was stopped."""

    def __init__(self, *, tool: str, timeout_s: float, where: str) -> None:
        super().__init__(
            f"{tool} in {where} did not end within {timeout_s:g} s and was stopped; check the network and try again.",
            tool=tool,
            timeout_s=timeout_s,
        )


class RepoUnreachable(EnvError):
    """A git repository cannot be reached."""

    def __init__(self, *, repo: str, reason: str) -> None:
        super().__init__(
            f"The repository {repo} cannot be reached ({reason}); check the address and the network.",
            repo=repo,
            reason=reason,
        )


class CommitMissing(EnvError):
    """A repository does not have the commit that is asked of it."""

    def __init__(self, *, repo: str, commit: str, reason: str) -> None:
        super().__init__(
            f"The repository {repo} does not have commit {commit} ({reason}); it may have been force-pushed away: "
            "use a vendor folder or a fork that has it, or lock another commit.",
            repo=repo,
            commit=commit,
        )


class CommitNotHere(EnvError):
    """Offline, and neither the cache nor the vendor folder has a commit."""

    def __init__(self, *, repo: str, commit: str, searched: tuple[str, ...]) -> None:
        super().__init__(
            f"Commit {commit} of {repo} is not on this machine (looked in {', '.join(searched)}), and --offline "
            "forbids to fetch it; run once with a network, or give --vendor a folder from `comfypin lock vendor`.",
            repo=repo,
            commit=commit,
        )


class TreeIncomplete(EnvError):
    """A repository has a commit, but not all of its files."""

    def __init__(self, *, repo: str, commit: str, path: str) -> None:
        super().__init__(
            f"The repository {repo} has commit {commit}, but not the content of {path}; "
            "the copy is damaged: fetch from another one.",
            repo=repo,
            commit=commit,
            path=path,
        )


class TreeRefused(EnvError):
    """A commit holds something that cannot become files by git alone: an LFS pointer, a link that leads out."""

    def __init__(self, *, repo: str, commit: str, path: str, reason: str) -> None:
        super().__init__(
            f"{path} in {repo} at {commit[:12]} cannot be checked out: {reason}.",
            repo=repo,
            commit=commit,
            path=path,
            reason=reason,
        )


class PatchUnfit(EnvError):
    """The changes that a lock holds for a commit do not apply to it."""

    def __init__(self, *, repo: str, reason: str) -> None:
        super().__init__(
            f"The lock's patch for {repo} does not apply to its commit: {reason}. Capture the release again, or take "
            "the patch out of the lock.",
            repo=repo,
            reason=reason,
        )


class RefMissing(EnvError):
    """A repository has no branch, tag or commit of the name that is asked of it."""

    def __init__(self, *, repo: str, ref: str, near: Sequence[str]) -> None:
        hint = (
            f"did you mean {' or '.join(near)}?" if near else "give a branch, a tag or a commit (7 to 40 hex digits)."
        )
        super().__init__(
            f"The repository {repo} has no branch, tag or commit {ref!r}; {hint}", repo=repo, ref=ref, near=list(near)
        )


class RefAmbiguous(EnvError):
    """A repository has a branch and a tag of one name, or several commits that begin alike."""

    def __init__(self, *, repo: str, ref: str, names: Sequence[str]) -> None:
        super().__init__(
            f"In the repository {repo}, {ref!r} is both {' and '.join(names)}; give one in full.",
            repo=repo,
            ref=ref,
            names=list(names),
        )


class CheckoutUnreadable(EnvError):
    """Git cannot say in which state a folder is."""

    def __init__(self, *, folder: str, reason: str) -> None:
        super().__init__(f"Git cannot read the checkout {folder}: {reason}.", folder=folder, reason=reason)


class UvFailed(EnvError):
    """uv said no, for a reason that is not a conflict of requirements."""

    def __init__(self, *, doing: str, reason: str) -> None:
        super().__init__(f"uv could not {doing}: {reason}", reason=reason)


class DownloadFailed(EnvError):
    """A file cannot be downloaded."""

    def __init__(self, *, url: str, reason: str) -> None:
        super().__init__(f"{url} cannot be downloaded: {reason}.", url=url, reason=reason)


class DownloadWrong(EnvError):
    """A file was downloaded, and is not the one that is meant."""

    def __init__(self, *, url: str, expected: str, actual: str) -> None:
        super().__init__(
            f"{url} has sha256 {actual}, and {expected} is wanted; nothing of it was kept. It was replaced at its "
            "source, or damaged on its way.",
            url=url,
            expected=expected,
            actual=actual,
        )
