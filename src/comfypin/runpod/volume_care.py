"""Looks after what was pushed to a volume: is it all still there, and what may go."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from comfypin.models.release_index import record_name
from comfypin.models.target_paths import STORE_FOLDER
from comfypin.runpod.volume_bucket import MultipartUpload, VolumeBucket, VolumeObject
from comfypin.runpod.volume_release import MODELS, PACKS, RECORDS, PushRecord, RecordedFile, blob_key, read_records

# Younger ones may be somebody's push that goes on.
GIVEN_UP_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFinding:
    """A file that is not what was recorded, in words."""

    release: str
    key: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeGarbage:
    """What no kept release needs: objects, and uploads in parts that were never ended."""

    objects: tuple[VolumeObject, ...]
    uploads: tuple[MultipartUpload, ...]
    records: tuple[PushRecord, ...]

    @property
    def size_bytes(self) -> int:
        """What the objects take."""
        return sum(item.size_bytes for item in self.objects)


def verify_volume(bucket: VolumeBucket, records: Iterable[PushRecord], *, deep: bool = False) -> list[VolumeFinding]:
    """Compare what the volume holds with what was recorded: sizes and etags, and with `deep` every byte."""
    found = []
    for record in records:
        if not record.complete:
            found.append(VolumeFinding(release=record.release, key=record.key, problem="was not pushed to its end"))
        for item in record.files.values():
            if (problem := _find_problem(bucket, item, deep=deep)) is not None:
                found.append(VolumeFinding(release=record.release, key=item.key, problem=problem))
    return found


def _find_problem(bucket: VolumeBucket, item: RecordedFile, *, deep: bool) -> str | None:
    stored = bucket.head_object(item.key)
    key = item.key
    if stored is None and item.kind == "model":
        # A pod's pull moves a model into the store and leaves a link, which S3 gateways need not show.
        key = blob_key(item.sha256)
        stored = bucket.head_object(key)
    if stored is None:
        return "is missing"
    if stored.size_bytes != item.size_bytes:
        return f"has {stored.size_bytes} bytes instead of {item.size_bytes}"
    # An etag that differs is not yet other bytes: a gateway may make it of the file's time.
    if not deep and (stored.etag == item.etag or key != item.key):
        return None
    actual = bucket.read_sha256(key)
    return None if actual == item.sha256 else f"has the sha256 {actual} instead of {item.sha256}"


def find_garbage(bucket: VolumeBucket, *, keep: Collection[str], now: datetime | None = None) -> VolumeGarbage:
    """What was pushed, or left by a push that was killed, and that no release of these names needs.

    Only what comfypin's records name goes: other files of the volume are not ours.
    """
    records = read_records(bucket)
    kept_files = {key: item for record in records if record.release in keep for key, item in record.files.items()}
    kept_digests = {item.sha256 for item in kept_files.values()}
    doomed: dict[str, VolumeObject] = {}
    for record in records:
        for item in record.files.values() if record.release not in keep else ():
            keys = [item.key] if item.key not in kept_files else []
            if item.kind == "model" and item.sha256 not in kept_digests:
                keys.append(blob_key(item.sha256))
            for key in keys:
                stored = bucket.head_object(key)
                if stored is not None:
                    doomed[key] = stored
    uploads = [upload for prefix in (MODELS, PACKS) for upload in bucket.list_uploads(f"{prefix}/")]
    given_up = (now or datetime.now(UTC)) - GIVEN_UP_AFTER
    return VolumeGarbage(
        objects=tuple(doomed[key] for key in sorted(doomed)),
        uploads=tuple(upload for upload in uploads if _begun_before(upload, given_up)),
        records=tuple(record for record in records if record.release not in keep),
    )


def _begun_before(upload: MultipartUpload, moment: datetime) -> bool:
    try:
        begun = datetime.fromisoformat(upload.begun)
    except ValueError:
        return False
    return begun.replace(tzinfo=begun.tzinfo or UTC) < moment


def remove_garbage(bucket: VolumeBucket, garbage: VolumeGarbage) -> None:
    """Remove it, object by object; a release's record goes after its files, so that a kill loses nothing."""
    for upload in garbage.uploads:
        bucket.abort_upload(upload.key, upload.upload_id)
    for item in garbage.objects:
        bucket.delete_object(item.key)
    for record in garbage.records:
        bucket.delete_object(f"{MODELS}/{STORE_FOLDER}/releases/{record_name(record.release)}")
        bucket.delete_object(f"{RECORDS}/{record_name(record.release)}")
