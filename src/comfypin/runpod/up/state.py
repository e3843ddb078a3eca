"""Remembers on this machine what `comfypin runpod up` deployed: releases in order, locks by digest, volumes filled.

<folder>/<name>/state.json            the history, written whole after each step
<folder>/<name>/locks/<sha256>.lock.json

Losing it loses the history, not the deployment: what exists on Runpod is found by its name.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.digest import JsonValue
from comfypin.runpod.up.errors import UpStateUnreadable

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UpRelease:
    """Everything that makes one release of a deployment again. `env` holds no secret: references at most.

    `stage` is `planned`, `deployed` (the endpoint runs it) or `proven` (a job came back); `seconds` are those of its
    smoke job by phase, `note` why it was made.
    """

    number: int
    release: str
    lock_digest: str
    image: str
    gpu_pools: tuple[str, ...]
    data_center: str | None = None
    volume_gb: int | None = None
    max_workers: int = 3
    idle_timeout_s: int = 10
    timeout_s: int = 600
    env: Mapping[str, str] = field(default_factory=dict)
    lock_url: str | None = None
    workflow: str = ""
    workflow_sha256: str = ""
    made_at: str = ""
    note: str = ""
    stage: str = "planned"
    seconds: Mapping[str, float] = field(default_factory=dict)

    def deploys_as(self, other: "UpRelease") -> bool:
        """Return whether both are the same to Runpod, whenever and for whichever workflow they were made."""
        return self._deployed_part() == other._deployed_part()

    def _deployed_part(self) -> dict[str, object]:
        beside = {"number", "workflow", "workflow_sha256", "made_at", "note", "stage", "seconds", "volume_gb"}
        return {field_name: value for field_name, value in asdict(self).items() if field_name not in beside}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpState:
    """The history of one deployment. `filled` holds `<volume id> <lock digest>` of fills that were seen to end well.

    `lock_request` is the digest of what the last lock was made from: the same question is not asked twice.
    """

    name: str
    releases: tuple[UpRelease, ...] = ()
    filled: frozenset[str] = frozenset()
    lock_request: str = ""
    lock_answer: str = ""
    package_request: str = ""

    @property
    def current(self) -> UpRelease | None:
        """Return the release that the endpoint runs, as far as this machine knows."""
        return next((release for release in reversed(self.releases) if release.stage != "planned"), None)

    @property
    def latest(self) -> UpRelease | None:
        """Return the newest release, also if it was only planned."""
        return self.releases[-1] if self.releases else None

    def with_release(self, release: UpRelease) -> "UpState":
        """Return the state with this release, in place of the one of its number."""
        others = tuple(known for known in self.releases if known.number != release.number)
        return replace(self, releases=tuple(sorted((*others, release), key=lambda known: known.number)))

    def with_filled(self, volume_id: str, lock_digest: str) -> "UpState":
        """Return the state that knows of a fill."""
        return replace(self, filled=self.filled | {f"{volume_id} {lock_digest}"})

    def is_filled(self, volume_id: str, lock_digest: str) -> bool:
        """Return whether this volume was filled for this lock."""
        return f"{volume_id} {lock_digest}" in self.filled

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        document = {
            "version": _VERSION,
            "name": self.name,
            "releases": [_release_to_json(release) for release in self.releases],
            "filled": sorted(self.filled),
            "lock_request": self.lock_request,
            "lock_answer": self.lock_answer,
            "package_request": self.package_request,
        }
        return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFolder:
    """The folder of one deployment's state."""

    root: Path
    name: str

    @property
    def path(self) -> Path:
        """Return the state's file."""
        return self.root / self.name / "state.json"

    @property
    def lease_path(self) -> Path:
        """Return the lease that keeps two processes from working on the deployment at once."""
        return self.root / self.name / "lease"

    def lock_path(self, lock_digest: str) -> Path:
        """Return where the lock of this digest lies."""
        return self.root / self.name / "locks" / f"{lock_digest.removeprefix('sha256:')}.lock.json"

    def read(self) -> UpState:
        """Return the state, or an empty one before the first run. Raises `UpStateUnreadable`."""
        try:
            return _parse_state(self.path.read_bytes(), self.name)
        except FileNotFoundError:
            return UpState(name=self.name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UpStateUnreadable(path=str(self.path), reason=str(error) or type(error).__name__) from error

    def write(self, state: UpState) -> None:
        """Write the state, whole."""
        write_atomically(self.path, state.to_bytes())

    def keep_lock(self, lock_digest: str, lock_bytes: bytes) -> None:
        """Keep a lock by its digest."""
        path = self.lock_path(lock_digest)
        if not path.is_file():
            write_atomically(path, lock_bytes)


def list_deployments(root: Path) -> list[str]:
    """Return the names of the deployments whose state is in this folder."""
    return sorted(path.parent.name for path in root.glob("*/state.json"))


def _release_to_json(release: UpRelease) -> dict[str, JsonValue]:
    document = asdict(release)
    return {
        **document,
        "gpu_pools": list(release.gpu_pools),
        "env": dict(release.env),
        "seconds": dict(release.seconds),
    }


def _parse_state(state_bytes: bytes, deployment_name: str) -> UpState:
    document = json.loads(state_bytes)
    if document["version"] != _VERSION:
        raise ValueError(f"it is of version {document['version']}, of a newer comfypin")
    known_fields = {known.name for known in fields(UpRelease)}
    releases = [
        UpRelease(
            **{
                **{key: value for key, value in release_json.items() if key in known_fields},
                "gpu_pools": tuple(release_json["gpu_pools"]),
            }
        )
        for release_json in document["releases"]
    ]
    return UpState(
        name=deployment_name,
        releases=tuple(releases),
        filled=frozenset(map(str, document["filled"])),
        lock_request=str(document.get("lock_request", "")),
        lock_answer=str(document.get("lock_answer", "")),
        package_request=str(document.get("package_request", "")),
    )
