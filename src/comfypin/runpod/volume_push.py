"""Pushes files to a volume: only what is missing, large ones in parts, going on from the parts that are there."""

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
from comfypin.models.interface import Unwatched, Watcher
from comfypin.runpod.errors import UploadGone, VolumePathTaken
from comfypin.runpod.volume_bucket import Stored, VolumeBucket, same_part
from comfypin.runpod.volume_release import LocalFile, Owed, Record, RecordedFile, blob_key, read_records, recorded
from comfypin.storage.errors import ChecksumMismatch, ObjectMissing, PayloadUnreadable, Transient
from comfypin.storage.part_sizes import MOST_PARTS, etag_of_parts

MIB = 1 << 20
PART_BYTES = 32 * MIB
SMALLEST_PART_BYTES = 5 * MIB
# RunPod refuses 500 MB and more in one request.
LARGEST_PART_BYTES = 450 * MIB
PARTS_AT_ONCE = 4
Outcome = Literal["present", "recognized", "pushed", "resumed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What became of one file: `recognized` were there without a record, `resumed` went on from parts."""

    key: str
    outcome: Outcome
    sha256: str
    size_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """How large parts are, whether files of others that are in the way are overwritten, and a folder on this machine
    where uploads are noted, for servers that do not list them.
    """

    part_bytes: int = PART_BYTES
    overwrite: bool = False
    notes: Path | None = None


class Pusher:
    """Brings one release to one volume."""

    def __init__(
        self,
        bucket: VolumeBucket,
        record: Record,
        *,
        label: str = "volume",
        options: PushOptions | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._bucket = bucket
        self._volume = label
        self._options = options or PushOptions()
        self._watcher = watcher or Unwatched()
        records = read_records(bucket)
        self._others = [other for other in records if other.release != record.release]
        self._earlier = recorded(records)
        # What an older push of this release recorded is believed, and forgotten where the lock no longer names it.
        self._record = replace(record, complete=False, files={})
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Begin nothing more: what is being sent fails with `Cancelled` after the parts that are on their way."""
        self._stopped.set()

    @property
    def bucket(self) -> VolumeBucket:
        """Where it goes."""
        return self._bucket

    @property
    def recorded_files(self) -> Mapping[str, RecordedFile]:
        """What this release is known to have on the volume, by key."""
        return self._record.files

    def there(self, key: str, sha256: Digest | None) -> RecordedFile | None:
        """The record of a file that is on the volume as it was pushed, or None. One HEAD, and only for known files."""
        known = self._earlier.get(key)
        if known is None or (sha256 is not None and known.sha256 != sha256.hex):
            return None
        found = self._bucket.head(key)
        if found is None and known.kind == "model":
            # A pod's pull moves a model into the store and leaves a link, which S3 gateways need not show.
            found = self._bucket.head(blob_key(known.sha256))
        if found is None or (found.size_bytes, found.etag) != (known.size_bytes, known.etag):
            return None
        return known

    def recorded_key(self, prefix: str) -> str | None:
        """The key of a recorded file that begins so."""
        return next((key for key in self._earlier if key.startswith(prefix)), None)

    def missing(self, owed: Iterable[Owed]) -> list[Owed]:
        """Those that are not on the volume as pinned, so that their bytes are needed here; the others are noted."""
        wanted = []
        for item in owed:
            known = self.there(item.key, item.sha256) if item.sha256 is not None else None
            if known is None:
                wanted.append(item)
            else:
                self.note(known)
        return wanted

    def note(self, known: RecordedFile) -> None:
        """Say in this release's record that the volume has the file."""
        self._record = replace(self._record, files={**self._record.files, known.key: known})

    def send(self, file: LocalFile) -> Pushed:
        """Bring one file, unless it is there, and record it. Raises `StorageError`, `VolumePathTaken`."""
        self._require_going()
        found = self._bucket.head(file.key)
        if found is not None and self._holds(file, found):
            known = self._earlier.get(file.key)
            outcome: Outcome = "present" if known is not None and known.etag == found.etag else "recognized"
            sent = 0
        elif found is None and (blob := self._as_blob(file)) is not None:
            found, outcome, sent = blob, "present", 0
        else:
            if found is not None:
                self._require_mine(file)
            outcome, sent = self._upload(file)
            found = self._bucket.head(file.key)
        if found is None or found.size_bytes != file.size_bytes:
            actual = "missing" if found is None else str(found.size_bytes)
            raise ChecksumMismatch(
                uri=f"{self._bucket.name}/{file.key}", kind="size", expected=str(file.size_bytes), actual=actual
            )
        sha256 = file.sha256.hex
        self.note(
            RecordedFile(key=file.key, sha256=sha256, size_bytes=file.size_bytes, etag=found.etag, kind=file.kind)
        )
        self._write_record()
        self._watcher.end_file(self._label(file), "present" if outcome in ("present", "recognized") else outcome)
        return Pushed(key=file.key, outcome=outcome, sha256=sha256, size_bytes=file.size_bytes, sent_bytes=sent)

    def finish(self) -> Record:
        """Write the record that says that everything is there."""
        self._record = replace(self._record, complete=True)
        if self._record not in self._earlier_records():
            self._write_record()
        return self._record

    # -- what is there

    def _holds(self, file: LocalFile, found: Stored) -> bool:
        """Whether an object is this file: by the record, else by its etag, else by its bytes."""
        if found.size_bytes != file.size_bytes:
            return False
        known = self._earlier.get(file.key)
        if known is not None and known.etag == found.etag:
            return known.sha256 == file.sha256.hex
        return self._etag_agrees(file, found.etag) or self._bucket.sha256(file.key) == file.sha256.hex

    def _etag_agrees(self, file: LocalFile, etag: str) -> bool:
        if "-" in etag:
            return etag == etag_of_parts(file.path, part_size(file.size_bytes, self._options.part_bytes))
        with file.path.open("rb") as opened:
            return etag == hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    def _as_blob(self, file: LocalFile) -> Stored | None:
        key = blob_key(file.sha256.hex)
        if file.kind != "model" or key == file.key:
            return None
        found = self._bucket.head(key)
        return found if found is not None and found.size_bytes == file.size_bytes else None

    def _require_mine(self, file: LocalFile) -> None:
        owner = next((f"release {other.release}" for other in self._others if file.key in other.files), None)
        if owner is None and file.key in self._earlier:
            return  # an earlier push of this release, with other pins
        if not self._options.overwrite:
            raise VolumePathTaken(volume=self._volume, key=file.key, owner=owner or "somebody else")

    # -- sending

    def _upload(self, file: LocalFile) -> tuple[Outcome, int]:
        if file.size_bytes <= self._options.part_bytes:
            self._watcher.start_file(self._label(file), file.size_bytes, 0)
            self._bucket.put(file.key, _slice(file, 0, file.size_bytes))
            self._watcher.advance_file(self._label(file), file.size_bytes)
            return "pushed", file.size_bytes
        try:
            return self._upload_parts(file)
        except UploadGone:
            found = self._bucket.head(file.key)
            if found is not None and self._holds(file, found):
                return "pushed", 0  # another push ended it
            return self._upload_parts(file)

    def _upload_parts(self, file: LocalFile) -> tuple[Outcome, int]:
        upload_id, there = self._unfinished(file.key)
        if upload_id is None:
            upload_id = self._bucket.begin(file.key)
            if (note := self._note_path(file.key)) is not None:
                note.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(note, upload_id.encode())
        size = part_size(file.size_bytes, self._options.part_bytes)
        offsets = dict(enumerate(range(0, file.size_bytes, size), start=1))
        kept = sum(part.size_bytes for number, part in there.items() if number in offsets)
        self._watcher.start_file(self._label(file), file.size_bytes, min(kept, file.size_bytes))
        etags: dict[int, str] = {}
        sent = _Count()

        def carry(number: int) -> None:
            self._require_going()
            body = _slice(file, offsets[number], min(size, file.size_bytes - offsets[number]))
            part = there.get(number)
            if part is not None and same_part(part, body):
                etags[number] = part.etag
                return
            etags[number] = self._bucket.put_part(file.key, upload_id, number, body)
            sent.add(len(body))
            self._watcher.advance_file(self._label(file), len(body))

        _all_or_first_failure(carry, offsets)
        self._join(file, upload_id, etags)
        return ("resumed" if sent.value < file.size_bytes else "pushed"), sent.value

    def _unfinished(self, key: str) -> tuple[str | None, dict[int, Stored]]:
        """The upload of this key that has got farthest, and its parts."""
        note = self._note_path(key)
        noted = [note.read_text()] if note is not None and note.is_file() else []
        listed = [upload.upload_id for upload in self._bucket.uploads(key) if upload.key == key]
        best: tuple[str | None, dict[int, Stored]] = (None, {})
        for upload_id in dict.fromkeys([*noted, *listed]):
            try:
                parts = self._bucket.parts(key, upload_id)
            except (UploadGone, ObjectMissing):
                continue
            if best[0] is None or len(parts) > len(best[1]):
                best = (upload_id, parts)
        return best

    def _note_path(self, key: str) -> Path | None:
        folder = self._options.notes
        return None if folder is None else folder / f"{Digest.of(f'{self._bucket.name}/{key}'.encode()).hex}.upload"

    def _join(self, file: LocalFile, upload_id: str, etags: Mapping[int, str]) -> None:
        """Join the parts. An answer that got lost, or took too long, may have done it: the object decides."""
        try:
            self._bucket.complete(file.key, upload_id, etags)
        except (UploadGone, Transient):
            found = self._bucket.head(file.key)
            if found is None or not self._holds(file, found):
                raise
        if (note := self._note_path(file.key)) is not None:
            note.unlink(missing_ok=True)

    def _require_going(self) -> None:
        if self._stopped.is_set():
            raise Cancelled("Stopped.")

    # -- the record

    def _write_record(self) -> None:
        self._bucket.put(self._record.key, self._record.to_bytes())

    def _earlier_records(self) -> list[Record]:
        return [record for record in read_records(self._bucket) if record.release == self._record.release]

    def _label(self, file: LocalFile) -> str:
        return f"{self._volume} {file.key}"


class _Count:
    """A number that threads add to."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.value += count


def part_size(size_bytes: int, wanted_bytes: int) -> int:
    """The size of all parts but the last: as wanted, or more where 10,000 of them would not do."""
    return max(wanted_bytes, -(-size_bytes // MOST_PARTS))


def _slice(file: LocalFile, offset: int, length: int) -> bytes:
    try:
        with file.path.open("rb", buffering=0) as opened:
            body = os.pread(opened.fileno(), length, offset)
            while (
                body
                and len(body) < length
                and (more := os.pread(opened.fileno(), length - len(body), offset + len(body)))
            ):
                body += more
    except OSError as exc:
        raise PayloadUnreadable(path=str(file.path), reason=exc.strerror or str(exc)) from exc
    if len(body) != length:
        raise PayloadUnreadable(path=str(file.path), reason="it became shorter while it was pushed")
    return body


def _all_or_first_failure(carry: Callable[[int], None], numbers: Iterable[int]) -> None:
    """Carry all parts, a few at once; after a failure, or an interrupt, none is begun any more."""
    pool = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="part")
    futures = [pool.submit(carry, number) for number in numbers]
    try:
        for future in futures:
            future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
