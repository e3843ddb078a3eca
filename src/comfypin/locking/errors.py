"""Failures of making a lock: what was asked for does not exist, does not fit together, or cannot be pinned."""

from collections.abc import Sequence

from comfypin.errors import LockError


class RequirementsUnreadable(LockError):
    """Lines of requirements that no installer could take."""

    def __init__(self, *, lines: Sequence[str]) -> None:
        shown = "".join(f"\n  {line}" for line in lines[:30])
        super().__init__(
            f"These requirements cannot be resolved on another machine; take the node out, use a fork with better "
            f"requirements, or leave a line out with --drop-requirement:{shown}",
            lines=list(lines),
        )


class RequirementsConflict(LockError):
    """No set of versions fits everybody: who wants what of the packages in question, and why nothing fits."""

    def __init__(self, *, target: str, wants: Sequence[str], explanation: str, unheard: Sequence[str] = ()) -> None:
        places = "".join(f"\n  {line}" for line in unheard)
        other = f"\nNot asked, because only you say where packages come from (--index URL):{places}" if unheard else ""
        shown = "".join(f"\n  {want}" for want in wants)
        asked = f" Who asks for what:{shown}" if wants else ""
        super().__init__(
            f"No versions of the packages fit together for {target}.{asked}\nThe resolver says: {explanation}{other}\n"
            "Take another version of one of them (--node URL@REF), or overrule a requirement with --override.",
            target=target,
            wants=list(wants),
            explanation=explanation,
        )


class TorchTrioSplit(LockError):
    """torch, torchvision and torchaudio cannot be had as one release."""

    def __init__(self, *, versions: str, target: str) -> None:
        super().__init__(
            f"torch, torchvision and torchaudio do not come from one release for {target}: {versions}. Name versions "
            "that belong together, such as --package torch==2.8.0 --package torchaudio==2.8.0.",
            versions=versions,
            target=target,
        )


class PackagesUnreachable(LockError):
    """The package index, or a package's own address, cannot be reached."""

    def __init__(self, *, reason: str, hint: str = "") -> None:
        super().__init__(f"The package index cannot be reached: {reason}.{hint}", reason=reason)


class GitPackageUnreachable(LockError):
    """A requirement names a git repository that cannot be fetched, or a ref that it does not have."""

    def __init__(self, *, wants: Sequence[str], reason: str) -> None:
        asked = f" ({'; '.join(wants)})" if wants else ""
        super().__init__(
            f"A package cannot be had from git{asked}: {reason}. Check the address and the network, or take a release "
            "of it instead with --override 'NAME==1.2'.",
            wants=list(wants),
            reason=reason,
        )


class GitPackageUnpinnable(LockError):
    """A package comes from git, and nothing of it has a sha256 that could be locked."""

    def __init__(self, *, packages: Sequence[str], wants: Sequence[str] = ()) -> None:
        asked = f" ({'; '.join(wants)})" if wants else ""
        super().__init__(
            f"These packages come from git and cannot be locked with a sha256: {', '.join(packages)}{asked}. Only an "
            "archive of a commit has one, and GitHub, GitLab and Codeberg give it, of whole repositories without "
            "submodules. Take a release or a wheel of it instead, with --override 'NAME==1.2' or --override "
            "'NAME @ https://...whl', or leave it out.",
            packages=list(packages),
            wants=list(wants),
        )


class PackageWithoutFile(LockError):
    """A package was resolved, and there is no file of it that the target can install."""

    def __init__(self, *, packages: Sequence[str], target: str) -> None:
        super().__init__(
            f"For {target} there is neither a wheel nor a source archive of {', '.join(packages)}; "
            "take another version, or another target.",
            packages=list(packages),
            target=target,
        )


class ReleaseExists(LockError):
    """A release of this name is there already, with other pins; releases do not change."""

    def __init__(self, *, path: str) -> None:
        super().__init__(
            f"{path} exists and pins something else; a release does not change: choose another name, or --force.",
            path=path,
        )


class NotComfyUI(LockError):
    """A folder or a commit that was named as ComfyUI is none."""

    def __init__(self, *, where: str, lacks: str) -> None:
        super().__init__(f"{where} is not a ComfyUI: it has no {lacks}.", where=where)


class CaptureRefused(LockError):
    """Things in a living ComfyUI that cannot be pinned, all at once."""

    def __init__(self, *, where: str, reasons: Sequence[str]) -> None:
        shown = "".join(f"\n  {reason}" for reason in reasons)
        super().__init__(f"{where} cannot be captured as it stands:{shown}", where=where, reasons=list(reasons))


class SnapshotUnreadable(LockError):
    """A file is neither a ComfyUI-Manager snapshot nor a comfy-lock.yaml."""

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(
            f"{path} is neither a ComfyUI-Manager snapshot nor a comfy-lock.yaml: {reason}.", path=path, reason=reason
        )


class NothingToUpgrade(LockError):
    """An upgrade names something that the lock does not have."""

    def __init__(self, *, names: Sequence[str], there: Sequence[str]) -> None:
        super().__init__(
            f"The lock has no {', '.join(names)}; there are {', '.join(there)}.", names=list(names), there=list(there)
        )


class RegistryAnswerInvalid(LockError):
    """The node registry answered with something that is not what it documents."""

    def __init__(self, *, url: str, lacks: str) -> None:
        super().__init__(f"The node registry answered {url} without {lacks}; try again later.", url=url)


class ArchiveUnreadable(LockError):
    """The archive of a node pack is not a zip that can be read."""

    def __init__(self, *, url: str, reason: str) -> None:
        super().__init__(f"The archive {url} of a node cannot be read: {reason}.", url=url, reason=reason)


class PackageUnbuildable(LockError):
    """A package has no wheel, and building one of its source failed."""

    def __init__(self, *, package: str, python: str, reason: str) -> None:
        super().__init__(
            f"{package} has no wheel, and it cannot be built here for Python {python}: {reason}. Install what its "
            "build needs, or lock a version that has a wheel.",
            package=package,
            reason=reason,
        )


class PackagesNowhere(LockError):
    """Installed packages that no package index has, so that no other machine could install them."""

    def __init__(self, *, packages: Sequence[str]) -> None:
        shown = ", ".join(packages[:20]) + (f" and {len(packages) - 20} more" if len(packages) > 20 else "")
        super().__init__(
            f"No package index has {shown}; install versions that can be had, or leave them out with --leave-out NAME.",
            packages=list(packages),
        )


class TrialFailed(LockError):
    """A lock could not be realized, or its workflow not run, while its reproduction was checked."""

    def __init__(self, *, command: str, place: str, reason: str, exit_code: int) -> None:
        super().__init__(
            f"`comfypin {command}` in {place} failed (exit code {exit_code}): {reason}",
            command=command,
            reason=reason,
            exit_code=exit_code,
        )
