"""Pushes files to a volume: only missing ones, large ones in parts, going on from the parts that are there."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from comfypin.atomic_files import write_atomically
from comfypin.digest import Digest
from comfypin.errors import Cancelled
from comfypin.models.interface import NullPullWatcher, PullWatcher
from comfypin.runpod.errors import UploadGone, VolumePathTaken
from comfypin.runpod.volume_bucket import VolumeBucket, VolumeObject, is_same_part
from comfypin.runpod.volume_release import (
    FileToPush,
    OwedModel,
    PushRecord,
    RecordedFile,
    blob_key,
    read_records,
    recorded_files,
)
from comfypin.storage.errors import ChecksumMismatch, ObjectMissing, PayloadUnreadable, TransientStorageError
from comfypin.storage.part_sizes import MOST_PARTS, etag_of_parts

MIB = 1 << 20
PART_BYTES = 32 * MIB
SMALLEST_PART_BYTES = 5 * MIB
# Runpod refuses 500 MB and more in one request.
LARGEST_PART_BYTES = 450 * MIB
# One laptop's line is full with these; each holds a part of up to 450 MiB in flight.
PARTS_AT_ONCE = 4
PushOutcome = Literal["present", "recognized", "pushed", "resumed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedFile:
    """One file after its push: `recognized` was there without a record, `resumed` went on from parts."""

    key: str
    outcome: PushOutcome
    sha256: str
    size_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """Options of a push: how large parts are, whether files of others that are in the way are overwritten, and a folder
    where uploads are noted, for servers that do not list them.
    """

    part_bytes: int = PART_BYTES
    overwrite: bool = False
    notes: Path | None = None


class VolumePusher:
    """Brings one release to one volume."""

    def __init__(
        self,
        volume_bucket: VolumeBucket,
        record: PushRecord,
        *,
        label: str = "volume",
        options: PushOptions | None = None,
        watcher: PullWatcher | None = None,
    ) -> None:
        self._bucket = volume_bucket
        self._volume = label
        self._options = options or PushOptions()
        self._watcher = watcher or NullPullWatcher()
        records = read_records(volume_bucket)
        self._other_records = [other_record for other_record in records if other_record.release != record.release]
        self._earlier_files = recorded_files(records)
        # What an older push of this release recorded is believed, and forgotten if the lock no longer names it.
        self._record = replace(record, complete=False, files={})
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Begin nothing more: what is being sent fails with `Cancelled` after the parts that are on their way."""
        self._stopped.set()

    @property
    def bucket(self) -> VolumeBucket:
        """Return the volume that this pushes to."""
        return self._bucket

    @property
    def recorded_files(self) -> Mapping[str, RecordedFile]:
        """Return the files that this release is known to have on the volume, by key."""
        return self._record.files

    def find_pushed(self, object_key: str, sha256: Digest | None) -> RecordedFile | None:
        """Return the record of a file that is on the volume as it was pushed, or None. Only known files cost a HEAD."""
        recorded_file = self._earlier_files.get(object_key)
        if recorded_file is None or (sha256 is not None and recorded_file.sha256 != sha256.hex):
            return None
        stored_object = self._bucket.head_object(object_key)
        if stored_object is None and recorded_file.kind == "model":
            # A pod's pull moves a model into the store and leaves a link, which S3 gateways need not show.
            stored_object = self._bucket.head_object(blob_key(recorded_file.sha256))
        if stored_object is None or (stored_object.size_bytes, stored_object.etag) != (
            recorded_file.size_bytes,
            recorded_file.etag,
        ):
            return None
        return recorded_file

    def recorded_key(self, prefix: str) -> str | None:
        """Return the key of a recorded file that begins with `prefix`."""
        return next((object_key for object_key in self._earlier_files if object_key.startswith(prefix)), None)

    def select_missing(self, owed: Iterable[OwedModel]) -> list[OwedModel]:
        """Return the models whose bytes are needed here, because the volume lacks them; note the others."""
        missing_files = []
        for owed_model in owed:
            recorded_file = (
                self.find_pushed(owed_model.key, owed_model.sha256) if owed_model.sha256 is not None else None
            )
            if recorded_file is None:
                missing_files.append(owed_model)
            else:
                self.note_file(recorded_file)
        return missing_files

    def note_file(self, recorded_file: RecordedFile) -> None:
        """Say in this release's record that the volume has the file."""
        self._record = replace(self._record, files={**self._record.files, recorded_file.key: recorded_file})

    def push_file(self, local_file: FileToPush) -> PushedFile:
        """Bring one file, unless it is there, and record it. Raises `StorageError`, `VolumePathTaken`."""
        self._require_going()
        stored_object = self._bucket.head_object(local_file.key)
        if stored_object is not None and self._is_same_file(local_file, stored_object):
            recorded_file = self._earlier_files.get(local_file.key)
            push_outcome: PushOutcome = (
                "present" if recorded_file is not None and recorded_file.etag == stored_object.etag else "recognized"
            )
            sent = 0
        elif stored_object is None and (stored_blob := self._find_blob(local_file)) is not None:
            stored_object, push_outcome, sent = stored_blob, "present", 0
        else:
            if stored_object is not None:
                self._require_mine(local_file)
            push_outcome, sent = self._upload_file(local_file)
            stored_object = self._bucket.head_object(local_file.key)
        self._record_file(local_file, stored_object)
        self._watcher.end_file(
            self._progress_label(local_file), "present" if push_outcome in ("present", "recognized") else push_outcome
        )
        return PushedFile(
            key=local_file.key,
            outcome=push_outcome,
            sha256=local_file.sha256.hex,
            size_bytes=local_file.size_bytes,
            sent_bytes=sent,
        )

    def _record_file(self, local_file: FileToPush, stored_object: VolumeObject | None) -> None:
        """Record that the volume has the file now. Raises `ChecksumMismatch` if it does not, or not all of it."""
        if stored_object is None or stored_object.size_bytes != local_file.size_bytes:
            actual = "missing" if stored_object is None else str(stored_object.size_bytes)
            raise ChecksumMismatch(
                uri=f"{self._bucket.name}/{local_file.key}",
                kind="size",
                expected=str(local_file.size_bytes),
                actual=actual,
            )
        self.note_file(
            RecordedFile(
                key=local_file.key,
                sha256=local_file.sha256.hex,
                size_bytes=local_file.size_bytes,
                etag=stored_object.etag,
                kind=local_file.kind,
            )
        )
        # After each file, so that a push that is killed goes on from here.
        self._write_record()

    def finish_release(self) -> PushRecord:
        """Write the record that says that everything is there."""
        self._record = replace(self._record, complete=True)
        # The volume has just this record already if nothing was missing.
        if self._record not in self._earlier_records():
            self._write_record()
        return self._record

    # -- what is there

    def _is_same_file(self, local_file: FileToPush, stored_object: VolumeObject) -> bool:
        """Return whether an object is this file: by the record, else by its etag, else by its bytes."""
        if stored_object.size_bytes != local_file.size_bytes:
            return False
        recorded_file = self._earlier_files.get(local_file.key)
        if recorded_file is not None and recorded_file.etag == stored_object.etag:
            return recorded_file.sha256 == local_file.sha256.hex
        return (
            self._etag_agrees(local_file, stored_object.etag)
            or self._bucket.read_sha256(local_file.key) == local_file.sha256.hex
        )

    def _etag_agrees(self, local_file: FileToPush, object_etag: str) -> bool:
        # An object that came in parts has the md5 of its parts' md5s, and their number, as its etag.
        if "-" in object_etag:
            return object_etag == etag_of_parts(
                local_file.path, part_size(local_file.size_bytes, self._options.part_bytes)
            )
        with local_file.path.open("rb") as open_file:
            return object_etag == hashlib.file_digest(open_file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    def _find_blob(self, local_file: FileToPush) -> VolumeObject | None:
        object_key = blob_key(local_file.sha256.hex)
        if local_file.kind != "model" or object_key == local_file.key:
            return None
        stored_object = self._bucket.head_object(object_key)
        return (
            stored_object if stored_object is not None and stored_object.size_bytes == local_file.size_bytes else None
        )

    def _require_mine(self, local_file: FileToPush) -> None:
        owner = next(
            (
                f"release {other_record.release}"
                for other_record in self._other_records
                if local_file.key in other_record.files
            ),
            None,
        )
        if owner is None and local_file.key in self._earlier_files:
            return  # an earlier push of this release, with other pins
        if not self._options.overwrite:
            raise VolumePathTaken(volume=self._volume, key=local_file.key, owner=owner or "somebody else")

    # -- sending

    def _upload_file(self, local_file: FileToPush) -> tuple[PushOutcome, int]:
        if local_file.size_bytes <= self._options.part_bytes:
            self._watcher.start_file(self._progress_label(local_file), local_file.size_bytes, 0)
            self._bucket.put_object(local_file.key, _read_slice(local_file, 0, local_file.size_bytes))
            self._watcher.advance_file(self._progress_label(local_file), local_file.size_bytes)
            return "pushed", local_file.size_bytes
        try:
            return self._upload_parts(local_file)
        # Another push of the same file may have completed the upload, or somebody aborted it.
        except UploadGone:
            stored_object = self._bucket.head_object(local_file.key)
            if stored_object is not None and self._is_same_file(local_file, stored_object):
                return "pushed", 0  # another push ended it
            return self._upload_parts(local_file)

    def _upload_parts(self, local_file: FileToPush) -> tuple[PushOutcome, int]:
        upload_id, parts_there = self._find_unfinished(local_file.key)
        if upload_id is None:
            upload_id = self._bucket.begin_upload(local_file.key)
            if (note_path := self._note_path(local_file.key)) is not None:
                note_path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(note_path, upload_id.encode())
        # The same size each time, else the parts that are there would not fit a push that goes on.
        part_bytes = part_size(local_file.size_bytes, self._options.part_bytes)
        offsets = dict(enumerate(range(0, local_file.size_bytes, part_bytes), start=1))
        kept_bytes = sum(
            stored_part.size_bytes for part_number, stored_part in parts_there.items() if part_number in offsets
        )
        self._watcher.start_file(
            self._progress_label(local_file), local_file.size_bytes, min(kept_bytes, local_file.size_bytes)
        )
        etags: dict[int, str] = {}
        sent = _SharedCount()

        def send_part(part_number: int) -> None:
            self._require_going()
            part_body = _read_slice(
                local_file, offsets[part_number], min(part_bytes, local_file.size_bytes - offsets[part_number])
            )
            stored_part = parts_there.get(part_number)
            if stored_part is not None and is_same_part(stored_part, part_body):
                etags[part_number] = stored_part.etag
                return
            etags[part_number] = self._bucket.put_part(local_file.key, upload_id, part_number, part_body)
            sent.add_bytes(len(part_body))
            self._watcher.advance_file(self._progress_label(local_file), len(part_body))

        _run_until_failure(send_part, offsets)
        self._join_parts(local_file, upload_id, etags)
        return ("resumed" if sent.value < local_file.size_bytes else "pushed"), sent.value

    def _find_unfinished(self, object_key: str) -> tuple[str | None, dict[int, VolumeObject]]:
        """Return the upload of this key that has got farthest, and its parts."""
        note_path = self._note_path(object_key)
        noted = [note_path.read_text()] if note_path is not None and note_path.is_file() else []
        listed = [upload.upload_id for upload in self._bucket.list_uploads(object_key) if upload.key == object_key]
        farthest: tuple[str | None, dict[int, VolumeObject]] = (None, {})
        # Both: not every gateway lists uploads, and the note may be of an older one.
        for upload_id in dict.fromkeys([*noted, *listed]):
            try:
                parts = self._bucket.list_parts(object_key, upload_id)
            except (UploadGone, ObjectMissing):
                continue
            if farthest[0] is None or len(parts) > len(farthest[1]):
                farthest = (upload_id, parts)
        return farthest

    def _note_path(self, object_key: str) -> Path | None:
        folder = self._options.notes
        if folder is None:
            return None
        return folder / f"{Digest.of(f'{self._bucket.name}/{object_key}'.encode()).hex}.upload"

    def _join_parts(self, local_file: FileToPush, upload_id: str, etags: Mapping[int, str]) -> None:
        """Join the parts. An answer that got lost, or took too long, may have done it: the object decides."""
        try:
            self._bucket.complete_upload(local_file.key, upload_id, etags)
        except (UploadGone, TransientStorageError):
            stored_object = self._bucket.head_object(local_file.key)
            if stored_object is None or not self._is_same_file(local_file, stored_object):
                raise
        if (note_path := self._note_path(local_file.key)) is not None:
            note_path.unlink(missing_ok=True)

    def _require_going(self) -> None:
        if self._stopped.is_set():
            raise Cancelled("Stopped.")

    # -- the record

    def _write_record(self) -> None:
        self._bucket.put_object(self._record.key, self._record.to_bytes())

    def _earlier_records(self) -> list[PushRecord]:
        return [record for record in read_records(self._bucket) if record.release == self._record.release]

    def _progress_label(self, local_file: FileToPush) -> str:
        return f"{self._volume} {local_file.key}"


class _SharedCount:
    """Counts for several threads."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add_bytes(self, count: int) -> None:
        with self._lock:
            self.value += count


def part_size(size_bytes: int, wanted_bytes: int) -> int:
    """Return the size of all parts but the last: as wanted, or more if 10,000 parts would not be enough."""
    return max(wanted_bytes, -(-size_bytes // MOST_PARTS))


def _read_slice(local_file: FileToPush, offset: int, length: int) -> bytes:
    try:
        with local_file.path.open("rb", buffering=0) as open_file:
            part_body = os.pread(open_file.fileno(), length, offset)
            while (
                part_body
                and len(part_body) < length
                and (more := os.pread(open_file.fileno(), length - len(part_body), offset + len(part_body)))
            ):
                part_body += more
    except OSError as exc:
        raise PayloadUnreadable(path=str(local_file.path), reason=exc.strerror or str(exc)) from exc
    if len(part_body) != length:
        raise PayloadUnreadable(path=str(local_file.path), reason="it became shorter while it was pushed")
    return part_body


def _run_until_failure(carry: Callable[[int], None], numbers: Iterable[int]) -> None:
    """Carry all parts, a few at once; after a failure, or an interrupt, none is begun any more."""
    pool = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="part")
    futures = [pool.submit(carry, part_number) for part_number in numbers]
    try:
        for future in futures:
            future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
