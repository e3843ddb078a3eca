"""Declares the failures of making a lock: what was asked for does not exist, does not fit, or cannot be pinned."""

import difflib
from collections.abc import Sequence

from comfypin.errors import EnvError, LockError, declare, indent_lines

# More names would not be read.
_MOST_OFFERED = 12


@declare
class RequirementsUnreadable(LockError):
    """Raised for requirement lines that no installer could take."""

    template = (
        "These requirements cannot be resolved on another machine; leave a line out with --drop-requirement, take "
        "the node out, or use a fork of it with other requirements:{listed}"
    )
    lines: Sequence[str]

    @property
    def listed(self) -> str:
        """Return the lines, one below the other."""
        return indent_lines(self.lines, at_most=30)


@declare
class RequirementsConflict(LockError):
    """Raised when no set of versions satisfies everybody; says who wants what, and why nothing fits."""

    template = (
        "No versions of the packages fit together for {target}.{asked}\nThe resolver says: {explanation}{skipped}\n"
        "Take another version of one of them (--node URL@REF), or overrule a requirement with --override."
    )
    target: str
    wants: Sequence[str]
    explanation: str
    unheard: Sequence[str] = ()

    @property
    def asked(self) -> str:
        """Return who asks for what, a line each."""
        return f" Who asks for what:{indent_lines(self.wants)}" if self.wants else ""

    @property
    def skipped(self) -> str:
        """Return the lines of nodes that name other indexes, which are not obeyed."""
        if not self.unheard:
            return ""
        lines = indent_lines(self.unheard)
        return f"\nNot asked, because only you say where packages come from (--index URL):{lines}"


@declare
class TorchTrioSplit(LockError):
    """Raised when torch, torchvision and torchaudio cannot be had from one release."""

    template = (
        "torch, torchvision and torchaudio do not belong together for {target}: {versions}. Name versions "
        "that do, such as --package torch==2.8.0 --package torchaudio==2.8.0."
    )
    versions: str
    target: str


@declare
class PackagesOverlap(LockError):
    """Raised when packages bring different files of the same paths, and no rule says which one is meant."""

    template = (
        "Packages overwrite each other's files, so what is imported would be chance:{listed}\nName the one that is "
        "meant with --variant NAME, or leave one out: --drop-requirement NAME if you or a node ask for it, "
        "--override \"NAME ; python_version < '0'\" if only another package does."
    )
    overlaps: Sequence[str]

    @property
    def listed(self) -> str:
        """Return the overlaps, a line each."""
        return indent_lines(self.overlaps, at_most=20)


@declare
class VariantUnknown(LockError):
    """Raised when `--variant` names a package that overwrites no other one, nor replaces one."""

    template = (
        "--variant {named} chooses nothing: no other package brings the same files. Ask for a package with --package."
    )
    names: Sequence[str]

    @property
    def named(self) -> str:
        """Return the names."""
        return ", ".join(self.names)


@declare
class NothingDropped(LockError):
    """Raised when `--drop-requirement` names something that neither the user nor a node asks for."""

    template = (
        "--drop-requirement {named} drops nothing: neither you, nor ComfyUI, nor a node asks for it.{offered} What "
        "only another package asks for is left out with --override \"{first} ; python_version < '0'\"."
    )
    names: Sequence[str]
    near: Sequence[str] = ()

    @property
    def first(self) -> str:
        """Return the first name."""
        return self.names[0]

    @property
    def named(self) -> str:
        """Return what was to be dropped."""
        return ", ".join(self.names)

    @property
    def offered(self) -> str:
        """Return a question that offers what is written similarly, empty if nothing is."""
        return f" Did you mean {' or '.join(self.near)}?" if self.near else ""


@declare
class PackagesUnreachable(LockError):
    """Raised when the package index, or a package's own address, cannot be reached."""

    template = "The package index cannot be reached: {reason}.{hint}"
    reason: str
    hint: str = ""


@declare
class GitPackageUnreachable(LockError):
    """Raised when a required git repository cannot be fetched, or does not have the ref."""

    template = (
        "A package cannot be fetched from git{asked}: {reason}. Check the address and the network, or take a release "
        "of it instead with --override 'NAME==1.2'."
    )
    wants: Sequence[str]
    reason: str

    @property
    def asked(self) -> str:
        """Return who asks for it, in brackets."""
        return _in_brackets(self.wants)


@declare
class GitPackageUnpinnable(LockError):
    """Raised when nothing of a package from git has a sha256 that could be locked."""

    template = (
        "These packages come from git and cannot be locked with a sha256: {named}{asked}. Only the archive of a whole "
        "repository without submodules has one, from GitHub, GitLab or Codeberg. Take a release or a wheel instead, "
        "with --override 'NAME==1.2' or --override 'NAME @ https://...whl', or leave the package out."
    )
    packages: Sequence[str]
    wants: Sequence[str] = ()

    @property
    def named(self) -> str:
        """Return the packages' names."""
        return ", ".join(self.packages)

    @property
    def asked(self) -> str:
        """Return who asks for them, in brackets."""
        return _in_brackets(self.wants)


@declare
class PackageWithoutFile(LockError):
    """Raised when a resolved package has no file that the target can install."""

    template = (
        "For {target} there is no wheel and no source archive of {named}; take another version, or another target."
    )
    packages: Sequence[str]
    target: str

    @property
    def named(self) -> str:
        """Return the packages' names and versions."""
        return ", ".join(self.packages)


@declare
class ReleaseExists(LockError):
    """Raised when a release of this name exists with other pins; releases do not change."""

    template = "{path} exists and pins something else. A release does not change: choose another name, or add --force."
    path: str


@declare
class InstalledUnreadable(EnvError):
    """Raised when the Python of an installed ComfyUI does not say which packages it has."""

    template = "{python} {reason}."
    python: str
    reason: str


@declare
class NotComfyUI(LockError):
    """Raised when a folder or commit that was named as ComfyUI is something else."""

    template = "{where} is not a ComfyUI: it has no {lacks}. Name the folder with main.py, or a repository of ComfyUI."
    where: str
    lacks: str


@declare
class CaptureRefused(LockError):
    """Raised with every reason when something in an installed ComfyUI cannot be pinned."""

    template = "{where} cannot be captured as it stands:{listed}"
    where: str
    reasons: Sequence[str]

    @property
    def listed(self) -> str:
        """Return the reasons, a line each."""
        return indent_lines(self.reasons)


@declare
class SnapshotUnreadable(LockError):
    """Raised when a file is of no other tool whose files can be read, or is not what such a tool writes."""

    template = (
        "{path} cannot be read as a release: {reason}. What can be read: snapshots of ComfyUI-Manager and of ComfyUI "
        "Desktop, comfy-cli's comfy-lock.yaml and comfy-build.yaml, comfy-pack's snapshot.json, cog-comfyui's "
        "custom_nodes.json, ComfyUI-Manager's model-list.json, and Dockerfiles."
    )
    path: str
    reason: str


@declare
class FileWithoutComfyUI(LockError):
    """Raised when a file of another tool does not say which ComfyUI it is for, and no flag does."""

    template = "{path}, {kind}, does not say which ComfyUI it is for; add --comfyui URL@REF.{hint}"
    path: str
    kind: str
    hint: str = ""


@declare
class NothingToLeaveOut(LockError):
    """Raised when a flag names a part that is not there, so that it would do nothing."""

    template = "{flag} {named} matches nothing in {where}: write a name in full.{suggestion}"
    flag: str
    names: Sequence[str]
    where: str
    near: Sequence[str] = ()

    @property
    def named(self) -> str:
        """Return the names that match nothing."""
        return ", ".join(self.names)

    @property
    def suggestion(self) -> str:
        """Return a question that offers the nearest names, empty if none is near."""
        return f" Did you mean {' or '.join(self.near)}?" if self.near else ""


@declare
class RequirementsUnmet(LockError):
    """Raised when what was installed lacks packages that ComfyUI or a node requires: an env of it would not work."""

    template = (
        "What was installed lacks packages that are required:{listed}\n{remedy} To have them, let all be resolved, "
        "with what was installed preferred: `comfypin lock create NAME --from FILE`. To lock it as it was, add "
        "--allow-missing."
    )
    missing: Sequence[str]
    added: Sequence[str] = ()

    @property
    def listed(self) -> str:
        """Return the requirements, a line each."""
        return indent_lines(self.missing, at_most=30)

    @property
    def remedy(self) -> str:
        """Return what would be added beside what was installed, if that fits."""
        if not self.added:
            return "Beside exactly these versions nothing fits that would bring them."
        return f"A resolve beside what was installed would add {', '.join(self.added)}."


@declare
class NothingToUpgrade(LockError):
    """Raised when an upgrade names something that the lock does not have."""

    template = "The lock has no {named}; {offered}."
    names: Sequence[str]
    there: Sequence[str]

    @property
    def named(self) -> str:
        """Return what was asked for."""
        return ", ".join(self.names)

    @property
    def offered(self) -> str:
        """Return what could be asked for: the nearest names, or all if they are few."""
        near = [
            known_name for wanted in self.names for known_name in difflib.get_close_matches(wanted, self.there, n=3)
        ]
        if near:
            return f"did you mean {' or '.join(dict.fromkeys(near))}?".removesuffix("?")
        if len(self.there) <= _MOST_OFFERED:
            return f"it has {', '.join(self.there)}"
        return f"it has {len(self.there)} others, which `comfypin lock show --json` lists"


@declare
class RegistryAnswerInvalid(LockError):
    """Raised when the node registry answers with something else than it documents."""

    template = "The node registry answered {url} without {lacks}; try again later."
    url: str
    lacks: str


@declare
class ArchiveUnreadable(LockError):
    """Raised when the archive of a node pack is not a readable zip."""

    template = "The archive {url} of a node cannot be read: {reason}. Take another version of the node."
    url: str
    reason: str


@declare
class PackageUnbuildable(LockError):
    """Raised when a package has no wheel, and building one from its source fails."""

    template = (
        "{package} has no wheel{asked}, and it cannot be built here for Python {python}: {reason}. {advice}Install "
        "what its build needs, or lock a version that has a wheel."
    )
    package: str
    reason: str
    python: str
    wants: Sequence[str] = ()
    remedy: str = ""

    @property
    def asked(self) -> str:
        """Return who asks for it, in brackets."""
        return _in_brackets(self.wants)

    @property
    def advice(self) -> str:
        """Return which wheel would do, as a sentence."""
        return f"But {self.remedy}. " if self.remedy else ""


@declare
class SourceNotWhole(EnvError):
    """Raised for a node, or a ComfyUI, of which something is gone: a submodule, or a file that is only a pointer."""

    template = (
        "{origin} is not complete: {reason} Take another version of it, or a fork that has everything "
        "(--node FOLDER=URL@REF)."
    )
    origin: str
    reason: str


@declare
class PackagesNowhere(LockError):
    """Raised for installed packages that no index has, so that no other machine could install them."""

    template = (
        "No package index has {named}; install versions that an index has, or leave them out with --leave-out NAME."
    )
    packages: Sequence[str]

    @property
    def named(self) -> str:
        """Return the first packages, and how many more there are."""
        more = f" and {len(self.packages) - 20} more" if len(self.packages) > 20 else ""
        return ", ".join(self.packages[:20]) + more


@declare
class NothingToBisect(LockError):
    """Raised when two locks that should give different outputs give the same."""

    template = (
        "{good} and {bad} give the same outputs for this workflow, so there is no pin to find. A picture that changes "
        "from run to run is found with `comfypin lock reproduce`."
    )
    good: str
    bad: str


class TrialFailed(LockError):
    """Raised when a lock cannot be realized, or its workflow not run, while its reproduction is checked."""

    def __init__(self, *, command: str, place: str, reason: str, exit_code: int) -> None:
        # Not declared: the command's exit code is a fact of its own, and not that of this error.
        super().__init__(
            f"`comfypin {command}` in {place} failed (exit code {exit_code}): {reason}",
            command=command,
            reason=reason,
            exit_code=exit_code,
        )


def _in_brackets(wants: Sequence[str]) -> str:
    return f" ({'; '.join(wants)})" if wants else ""
