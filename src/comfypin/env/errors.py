"""Failures of realizing, packing and checking an env."""

from collections.abc import Sequence
from pathlib import Path

from comfypin.errors import EnvError


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB"


class PythonMissing(EnvError):
    """No interpreter of the lock's Python version is on this machine."""

    def __init__(self, *, version: str, reason: str) -> None:
        super().__init__(
            f"Python {version}, which the lock asks for, is not on this machine ({reason}); install it "
            f"(Debian, Ubuntu: apt-get install python{version} python{version}-venv).",
            version=version,
        )


class TargetMissing(EnvError):
    """The lock was not resolved for this machine, or for more than one kind of it."""

    def __init__(self, *, machine: str, targets: Sequence[str], reason: str) -> None:
        super().__init__(
            f"The lock does not fit this machine ({machine}): {reason}; it has targets {', '.join(targets) or 'none'}.",
            machine=machine,
            targets=list(targets),
        )


class WheelUnfit(EnvError):
    """Packages of the lock have no wheel for this platform and Python."""

    def __init__(self, *, machine: str, packages: Sequence[str]) -> None:
        super().__init__(
            f"No wheel for this platform ({machine}): {'; '.join(packages)}. Lock the release for it too, "
            "or realize it where it was made for.",
            machine=machine,
            packages=list(packages),
        )


class PackageHashMismatch(EnvError):
    """A package that was downloaded, or lies in a vendor folder, is not the one that the lock names."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(
            f"A package has not the sha256 that the lock names: {reason}. Nothing was installed; the file was "
            "replaced at its source, or damaged on its way.",
            reason=reason,
        )


class PackagesUnavailable(EnvError):
    """uv could not bring the packages."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"The Python packages could not be installed: {reason}", reason=reason)


class VendorIncomplete(EnvError):
    """A vendor folder lacks something that the lock needs, and there is to be no network."""

    def __init__(self, *, vendor: Path, missing: Sequence[str]) -> None:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        super().__init__(
            f"The vendor folder {vendor} lacks {shown}; make it again with `comfypin lock vendor`.",
            vendor=str(vendor),
            missing=list(missing),
        )


class PackageDamaged(EnvError):
    """uv's cache holds a package whose files were changed, and it cannot be downloaded again."""

    def __init__(self, *, packages: Sequence[str], example: str) -> None:
        super().__init__(
            f"uv's cache held changed files of {', '.join(packages)} (first: {example}; an edit through a hard link "
            "does that), and they cannot be downloaded again now; run once with a network.",
            packages=list(packages),
            example=example,
        )


class ArchiveUnusable(EnvError):
    """The archive of a node pack cannot be downloaded, is not the locked one, or is not a safe zip."""

    def __init__(self, *, node: str, url: str, reason: str) -> None:
        super().__init__(f"The archive of node {node} ({url}) cannot be used: {reason}.", node=node, url=url)


class InstallScriptChanged(EnvError):
    """A node's install.py is not the one that was reviewed and locked."""

    def __init__(self, *, node: str, expected: str, actual: str) -> None:
        super().__init__(
            f"install.py of node {node} has sha256 {actual}, and the lock says {expected}; it was not run.",
            node=node,
            expected=expected,
            actual=actual,
        )


class InstallScriptFailed(EnvError):
    """A node's install.py ended badly, or changed packages that the lock pins."""

    def __init__(self, *, node: str, reason: str) -> None:
        super().__init__(
            f"install.py of node {node} failed: {reason}. Lock the release with install_script `skip` for it, "
            "or repair what it needs.",
            node=node,
            reason=reason,
        )


class ProbeFailed(EnvError):
    """ComfyUI, a node or a requirement cannot be imported in the env that was made."""

    def __init__(self, *, failures: Sequence[tuple[str, str]], log: Sequence[str] = ()) -> None:
        shown = "".join(f"\n  {subject}: {reason}" for subject, reason in failures[:20])
        tail = "".join(f"\n  | {line}" for line in log)
        super().__init__(
            f"The env was made and does not work, so it was not kept; what cannot be imported:{shown}{tail}",
            failures=[{"subject": subject, "reason": reason} for subject, reason in failures],
        )


class NoRoomForEnv(EnvError):
    """There is not enough free space for what is to be made; found out before anything was made."""

    def __init__(self, *, where: Path, need_bytes: int, free_bytes: int, what: str) -> None:
        super().__init__(
            f"{what} needs {_gb(need_bytes)} in {where}, and {_gb(free_bytes)} are free; nothing was started. "
            "Make room (`comfypin env gc`) or choose another --home.",
            where=str(where),
            need_bytes=need_bytes,
            free_bytes=free_bytes,
        )


class DiskFull(EnvError):
    """The disk became full on the way; what was begun was removed."""

    def __init__(self, *, where: Path) -> None:
        super().__init__(f"The disk that holds {where} is full; what was begun was removed.", where=str(where))


class HomeOccupied(EnvError):
    """COMFY_HOME holds something under a name of ours that we did not make."""

    def __init__(self, *, path: Path) -> None:
        super().__init__(
            f"{path} exists and was not made by comfypin; move it away, or choose another --home.", path=str(path)
        )


class HomeUnusable(EnvError):
    """COMFY_HOME cannot be written."""

    def __init__(self, *, path: Path, reason: str) -> None:
        super().__init__(
            f"The home {path} cannot be written ({reason}); choose another with --home or COMFY_HOME.",
            path=str(path),
            reason=reason,
        )


class NotAnEngine(EnvError):
    """The lock's engine is not a ComfyUI of our own, so there is no env to make."""

    def __init__(self, *, kind: str) -> None:
        super().__init__(
            f"The lock's engine is `{kind}`, which has no env; only engine.kind `comfyui` is realized.", kind=kind
        )


class NothingRealized(EnvError):
    """There is no env in the home."""

    def __init__(self, *, home: Path) -> None:
        super().__init__(
            f"No env is realized in {home}; run `comfypin realize LOCK --home {home}` first.", home=str(home)
        )


class BuildChanged(EnvError):
    """A build that is to be packed is not what its receipt says."""

    def __init__(self, *, path: Path) -> None:
        super().__init__(
            f"{path} was changed since the env was realized, so it is not packed; `comfypin env status` names all that "
            "differs, `comfypin realize --rebuild` makes the env anew.",
            path=str(path),
        )


class PackDamaged(EnvError):
    """An env pack is not what its own table says; nothing of it was used."""

    def __init__(self, *, where: str, reason: str) -> None:
        super().__init__(
            f"The env pack {where} is damaged ({reason}) and was not used; delete it and publish it again.",
            where=where,
            reason=reason,
        )


class PackUnfit(EnvError):
    """An env pack is of another env, platform or Python than is wanted."""

    def __init__(self, *, where: str, reason: str) -> None:
        super().__init__(f"The env pack {where} does not fit: {reason}.", where=where, reason=reason)
