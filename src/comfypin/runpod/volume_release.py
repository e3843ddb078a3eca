"""Lays out a release on a network volume: which files under which keys, and the record of what was pushed.

models/<target>            the release's models, where MODELS_DIR=/workspace/models looks (/runpod-volume/models)
models/.comfypin/...       the models' store: blobs of pins outside MODELS_DIR, and which release uses which
packs/<name>.envpack       env packs, where COMFYPIN_PACKS=/workspace/packs looks
comfypin/releases/*.json   one record per release: key, sha256, size and etag of each file; written last
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from comfypin.digest import Digest, JsonValue, canonical_json
from comfypin.errors import LockError
from comfypin.lock.model import Lock, ModelPin
from comfypin.models.release_index import encode_release, record_file_name
from comfypin.models.target_paths import STORE_FOLDER, TargetRoots, list_targets
from comfypin.runpod.volume_bucket import VolumeBucket

MODELS = "models"
PACKS = "packs"
RECORDS = "comfypin/releases"
FileKind = Literal["model", "env"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwedModel:
    """One model that the volume should have; its bytes have not been found yet."""

    key: str
    sha256: Digest | None
    size_bytes: int | None
    pin: ModelPin
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FileToPush:
    """One verified file on this machine that belongs on the volume under `key`."""

    key: str
    path: Path
    sha256: Digest
    size_bytes: int
    kind: FileKind = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    """One file that was pushed, with the etag that the volume gave it."""

    key: str
    sha256: str
    size_bytes: int
    etag: str
    kind: FileKind = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRecord:
    """Record of a release's push. `complete` is written last, when everything is there."""

    release: str
    lock_digest: str
    complete: bool
    files: Mapping[str, RecordedFile]

    @property
    def key(self) -> str:
        """Return the record's key on the volume."""
        return f"{RECORDS}/{record_file_name(self.release)}"

    def to_bytes(self) -> bytes:
        """Return the record as it is written."""
        files: list[JsonValue] = [
            {
                "key": file_record.key,
                "sha256": file_record.sha256,
                "size_bytes": file_record.size_bytes,
                "etag": file_record.etag,
                "kind": file_record.kind,
            }
            for file_record in sorted(self.files.values(), key=lambda file_record: file_record.key)
        ]
        return canonical_json(
            {"release": self.release, "lock_digest": self.lock_digest, "complete": self.complete, "files": files}
        )


def owed_models(lock: Lock, places: TargetRoots) -> list[OwedModel]:
    """Return the release's models and their keys. Raises `TargetRefused`."""
    owed = []
    for model_pin, target_path in list_targets(lock, places):
        try:
            object_key = f"{MODELS}/{target_path.relative_to(places.models_dir).as_posix()}"
        except ValueError as exc:
            # Outside MODELS_DIR (a node's own folder): the store has it by digest, and the pod's pull links it.
            if model_pin.sha256 is None:
                raise LockError(
                    f"Model {model_pin.name} ({model_pin.target_path}) is outside MODELS_DIR and has no sha256, so "
                    "a volume cannot hold it; pin it: comfypin models add.",
                    model=model_pin.name,
                ) from exc
            object_key = blob_key(model_pin.sha256.hex)
        owed.append(
            OwedModel(
                key=object_key,
                sha256=model_pin.sha256,
                size_bytes=model_pin.size_bytes,
                pin=model_pin,
                path=target_path,
            )
        )
    return owed


def blob_key(sha256: str) -> str:
    """Return the key under which the models' store keeps these bytes."""
    return f"{MODELS}/{STORE_FOLDER}/blobs/sha256/{sha256[:2]}/{sha256}"


def store_record(lock: Lock, digests: Mapping[str, Digest]) -> tuple[str, bytes]:
    """Return the record that protects a release's models from the store's garbage collection on the volume.

    `digests` are by target path.
    """
    blobs: dict[Digest, list[str]] = {}
    for model_pin in lock.models:
        blobs.setdefault(digests[model_pin.target_path], []).append(model_pin.target_path)
    return f"{MODELS}/{STORE_FOLDER}/releases/{record_file_name(lock.version_name)}", encode_release(
        lock.version_name, blobs
    )


def read_records(bucket: VolumeBucket) -> list[PushRecord]:
    """Read what was pushed to a volume; unreadable records are left out. Raises `StorageError`."""
    push_records = []
    for file_record in sorted(bucket.list_objects(f"{RECORDS}/"), key=lambda stored: stored.key):
        record_bytes = bucket.read_object(file_record.key) if file_record.key.endswith(".json") else None
        push_record = _parse_record(record_bytes) if record_bytes is not None else None
        if push_record is not None:
            push_records.append(push_record)
    return push_records


def recorded_files(records: Iterable[PushRecord]) -> dict[str, RecordedFile]:
    """Return all files that records name, by key."""
    return {object_key: file_record for push_record in records for object_key, file_record in push_record.files.items()}


def _parse_record(record_bytes: bytes) -> PushRecord | None:
    try:
        document = json.loads(record_bytes)
        files = [
            RecordedFile(
                key=str(file_record["key"]),
                sha256=str(file_record["sha256"]),
                size_bytes=int(file_record["size_bytes"]),
                etag=str(file_record["etag"]),
                kind="env" if file_record["kind"] == "env" else "model",
            )
            for file_record in document["files"]
        ]
        return PushRecord(
            release=str(document["release"]),
            lock_digest=str(document["lock_digest"]),
            complete=document["complete"] is True,
            files={file_record.key: file_record for file_record in files},
        )
    # Somebody's own file, or a record of a newer comfypin, is no reason to fail.
    except (ValueError, KeyError, TypeError):
        return None
