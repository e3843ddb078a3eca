"""Failures of realizing, packing and checking an env."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from comfypin.errors import EnvError, declare
from comfypin.plurals import format_size


@declare
class PythonMissing(EnvError):
    """No interpreter of the lock's Python version is on this machine."""

    template = (
        "The lock asks for Python {version}, which is not on this machine ({reason}). Install it (Debian, Ubuntu: "
        "apt-get install python{version} python{version}-venv)."
    )
    version: str
    reason: str


@declare
class TargetMissing(EnvError):
    """The lock was not resolved for this machine, or several of its targets fit it."""

    template = "The lock does not fit this machine ({machine}): {reason}. Its targets: {listed}."
    machine: str
    targets: Sequence[str]
    reason: str

    @property
    def listed(self) -> str:
        return ", ".join(self.targets) or "none"


@declare
class WheelUnfit(EnvError):
    """Packages of the lock have no wheel for this platform and Python."""

    template = (
        "These packages have no wheel for this machine ({machine}): {listed}. Lock the release for this platform "
        "too, or realize it on the platform that it was locked for."
    )
    machine: str
    packages: Sequence[str]

    @property
    def listed(self) -> str:
        return "; ".join(self.packages)


@declare
class PackageHashMismatch(EnvError):
    """A downloaded or vendored package does not match the sha256 in the lock."""

    template = (
        "A package does not match its sha256 in the lock: {reason}. Nothing was installed. The file was replaced at "
        "its source, or damaged on the way; try again, and if that does not help, lock the release anew."
    )
    reason: str


@declare
class PackageUnbuilt(EnvError):
    """A package of the lock has no wheel for this Python, and building it here fails."""

    template = (
        "{package}{asked} has no wheel for Python {python}, and it cannot be built here: {reason}. Install what its "
        "build needs, lock a version that has a wheel (comfypin lock upgrade --override '{name}==VERSION'), or another "
        "Python (comfypin lock upgrade --python X.Y)."
    )
    package: str
    name: str
    python: str
    reason: str
    wants: Sequence[str] = ()

    @property
    def asked(self) -> str:
        """Return who asks for it, in brackets."""
        return f" ({'; '.join(self.wants)})" if self.wants else ""


@declare
class PackagesUnavailable(EnvError):
    """uv could not install the packages."""

    template = "The Python packages could not be installed: {reason}"
    reason: str


@declare
class VendorIncomplete(EnvError):
    """A vendor folder lacks something that the lock needs, and --offline forbids to download it."""

    template = "The vendor folder {vendor} lacks {listed}. Make it again: comfypin lock vendor."
    vendor: Path
    missing: Sequence[str]

    @property
    def listed(self) -> str:
        more = f" and {len(self.missing) - 5} more" if len(self.missing) > 5 else ""
        return ", ".join(self.missing[:5]) + more


@declare
class PackageDamaged(EnvError):
    """uv's cache holds a package whose files were changed, and it cannot be downloaded again."""

    template = (
        "In uv's cache, files of {listed} were changed (first: {example}), probably by an edit through a hard link, "
        "and the packages could not be downloaded again. Run once with a network."
    )
    packages: Sequence[str]
    example: str

    @property
    def listed(self) -> str:
        return ", ".join(self.packages)


@declare
class ArchiveUnusable(EnvError):
    """A node pack's archive cannot be downloaded, does not match the lock, or is not a safe zip."""

    template = (
        "The archive of node {node} ({url}) cannot be used: {reason}. Pin another version of it, or its repository."
    )
    node: str
    url: str
    reason: str


@declare
class InstallScriptChanged(EnvError):
    """A node's install.py is not the one that was reviewed and locked."""

    template = (
        "install.py of node {node} has sha256 {actual}, but the lock says {expected}; it was not run. Review the "
        "script, then lock the release anew."
    )
    node: str
    expected: str
    actual: str


@declare
class InstallScriptFailed(EnvError):
    """A node's install.py failed, or changed packages that the lock pins."""

    template = (
        "install.py of node {node} failed: {reason}. Repair what it needs, or set the node's install_script to "
        "`skip` in the lock."
    )
    node: str
    reason: str


@declare
class RequirementsNotLocked(EnvError):
    """ComfyUI requires packages that the lock does not pin, so it could not start."""

    template = (
        "ComfyUI requires packages that the lock does not have: {names}. Install them in the ComfyUI that it was "
        "captured from and capture it again, or add them: comfypin lock upgrade --lock LOCK --name NEW --package NAME."
    )
    missing: Sequence[str]

    @property
    def names(self) -> str:
        """Return the packages, as they are installed."""
        return ", ".join(self.missing)


@declare
class ProbeFailed(EnvError):
    """ComfyUI, a node or a requirement cannot be imported in the new env; each failure has a subject and a reason."""

    template = (
        "The env was built, and removed again, because parts of it cannot be imported. Pin what they need, or leave "
        "them out of the lock:{listed}{hint}{log_tail}"
    )
    failures: Sequence[Mapping[str, str]]
    skipped_scripts: Sequence[str] = ()
    _log: Sequence[str] = ()

    @property
    def listed(self) -> str:
        return "".join(f"\n  {failure['subject']}: {failure['reason']}" for failure in self.failures[:20])

    @property
    def hint(self) -> str:
        """Say which of their install scripts the lock skips: some fetch code that the node imports."""
        if not self.skipped_scripts:
            return ""
        names = ", ".join(self.skipped_scripts)
        return (
            f"\n  install.py of {names} was skipped and may bring what is missing; to have it run, set the node's "
            "install_script to `run` in the lock (lock create --install-script FOLDER)."
        )

    @property
    def log_tail(self) -> str:
        return "".join(f"\n  | {line}" for line in self._log)


@declare
class NoRoomForEnv(EnvError):
    """The disk has too little free space, which was found out before anything was made."""

    template = (
        "{what} needs {needed} in {where}, which has {free} free; nothing was started. Make room (comfypin env gc), "
        "or choose another --home."
    )
    where: Path
    need_bytes: int
    free_bytes: int
    what: str

    @property
    def needed(self) -> str:
        return format_size(self.need_bytes)

    @property
    def free(self) -> str:
        return format_size(self.free_bytes)


@declare
class DiskFull(EnvError):
    """The disk became full during the work, and what was written was removed."""

    template = (
        "The disk that holds {where} is full; what was written was removed. Make room (comfypin env gc), then retry."
    )
    where: Path


@declare
class HomeOccupied(EnvError):
    """COMFY_HOME holds something under one of our names that comfypin did not make."""

    template = "{path} exists and was not made by comfypin. Move it away, or choose another --home."
    path: Path


@declare
class HomeUnusable(EnvError):
    """COMFY_HOME cannot be written."""

    template = "The home {path} cannot be written ({reason}). Choose another with --home or COMFY_HOME."
    path: Path
    reason: str


@declare
class NotAnEngine(EnvError):
    """The lock's engine is not ComfyUI, so it has no env to make."""

    template = "The lock's engine.kind is `{kind}`, which has no env; only `comfyui` can be realized."
    kind: str


@declare
class NothingRealized(EnvError):
    """The home holds no env."""

    template = "No env is realized in {home}. Make one first: comfypin realize LOCK --home {home}."
    home: Path


@declare
class BuildChanged(EnvError):
    """A build that is to be packed is not what its receipt says."""

    template = (
        "{path} was changed after the env was realized, so the env is not packed. comfypin env status lists every "
        "difference; comfypin realize --rebuild makes the env anew."
    )
    path: Path


@declare
class PackDamaged(EnvError):
    """An env pack does not match its own index; nothing of it was used."""

    template = "The env pack {where} is damaged ({reason}) and was not used. Delete it, then publish it again."
    where: str
    reason: str


@declare
class PackUnfit(EnvError):
    """An env pack is for another env, platform or Python."""

    template = "The env pack {where} does not fit: {reason}."
    where: str
    reason: str
