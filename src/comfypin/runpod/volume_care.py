"""Verifies what was pushed to a volume, and finds what may be removed."""

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
    """One file that does not match its record, in words."""

    release: str
    key: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeGarbage:
    """Objects that no kept release needs, and uploads in parts that were never completed."""

    objects: tuple[VolumeObject, ...]
    uploads: tuple[MultipartUpload, ...]
    records: tuple[PushRecord, ...]

    @property
    def size_bytes(self) -> int:
        """Return the size of all objects."""
        return sum(recorded_file.size_bytes for recorded_file in self.objects)


def verify_volume(bucket: VolumeBucket, records: Iterable[PushRecord], *, deep: bool = False) -> list[VolumeFinding]:
    """Compare what the volume holds with what was recorded: sizes and etags, and with `deep` every byte."""
    findings = []
    for record in records:
        if not record.complete:
            findings.append(VolumeFinding(release=record.release, key=record.key, problem="was not pushed to its end"))
        for recorded_file in record.files.values():
            if (problem := _find_problem(bucket, recorded_file, deep=deep)) is not None:
                findings.append(VolumeFinding(release=record.release, key=recorded_file.key, problem=problem))
    return findings


def _find_problem(bucket: VolumeBucket, recorded_file: RecordedFile, *, deep: bool) -> str | None:
    stored_object = bucket.head_object(recorded_file.key)
    key = recorded_file.key
    if stored_object is None and recorded_file.kind == "model":
        # A pod's pull moves a model into the store and leaves a link, which S3 gateways need not show.
        key = blob_key(recorded_file.sha256)
        stored_object = bucket.head_object(key)
    if stored_object is None:
        return "is missing"
    if stored_object.size_bytes != recorded_file.size_bytes:
        return f"has {stored_object.size_bytes} bytes instead of {recorded_file.size_bytes}"
    # An etag that differs is not yet other bytes: a gateway may make it of the file's time.
    if not deep and (stored_object.etag == recorded_file.etag or key != recorded_file.key):
        return None
    actual = bucket.read_sha256(key)
    return None if actual == recorded_file.sha256 else f"has the sha256 {actual} instead of {recorded_file.sha256}"


def find_garbage(bucket: VolumeBucket, *, keep: Collection[str], now: datetime | None = None) -> VolumeGarbage:
    """Find what was pushed, or left by a killed push, and is not needed by any release of these names.

    Only what comfypin's records name goes: other files of the volume are not ours.
    """
    records = read_records(bucket)
    kept_files = {
        key: recorded_file
        for record in records
        if record.release in keep
        for key, recorded_file in record.files.items()
    }
    kept_digests = {recorded_file.sha256 for recorded_file in kept_files.values()}
    doomed_objects: dict[str, VolumeObject] = {}
    for record in records:
        for recorded_file in record.files.values() if record.release not in keep else ():
            keys = [recorded_file.key] if recorded_file.key not in kept_files else []
            if recorded_file.kind == "model" and recorded_file.sha256 not in kept_digests:
                keys.append(blob_key(recorded_file.sha256))
            for key in keys:
                stored_object = bucket.head_object(key)
                if stored_object is not None:
                    doomed_objects[key] = stored_object
    uploads = [upload for prefix in (MODELS, PACKS) for upload in bucket.list_uploads(f"{prefix}/")]
    given_up = (now or datetime.now(UTC)) - GIVEN_UP_AFTER
    return VolumeGarbage(
        objects=tuple(doomed_objects[key] for key in sorted(doomed_objects)),
        uploads=tuple(upload for upload in uploads if _begun_before(upload, given_up)),
        records=tuple(record for record in records if record.release not in keep),
    )


def _begun_before(upload: MultipartUpload, moment: datetime) -> bool:
    try:
        begun_at = datetime.fromisoformat(upload.begun)
    except ValueError:
        return False
    return begun_at.replace(tzinfo=begun_at.tzinfo or UTC) < moment


def remove_garbage(bucket: VolumeBucket, garbage: VolumeGarbage) -> None:
    """Remove it, object by object; a release's record goes after its files, so that a kill loses nothing."""
    for upload in garbage.uploads:
        bucket.abort_upload(upload.key, upload.upload_id)
    for recorded_file in garbage.objects:
        bucket.delete_object(recorded_file.key)
    for record in garbage.records:
        bucket.delete_object(f"{MODELS}/{STORE_FOLDER}/releases/{record_name(record.release)}")
        bucket.delete_object(f"{RECORDS}/{record_name(record.release)}")
