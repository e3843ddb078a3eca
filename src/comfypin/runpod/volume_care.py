"""Verifies what was pushed to a volume, and finds and removes what is not needed."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from comfypin.models.release_index import record_file_name
from comfypin.models.target_paths import STORE_FOLDER
from comfypin.runpod.volume_bucket import MultipartUpload, VolumeBucket, VolumeObject
from comfypin.runpod.volume_release import MODELS, PACKS, RECORDS, PushRecord, RecordedFile, blob_key, read_records

# A younger upload may belong to a push that is still running.
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
        return sum(volume_object.size_bytes for volume_object in self.objects)


def verify_volume(
    volume_bucket: VolumeBucket, records: Iterable[PushRecord], *, deep: bool = False
) -> list[VolumeFinding]:
    """Compare what the volume holds with what was recorded: sizes and etags, and with `deep` every byte."""
    findings = []
    for push_record in records:
        if not push_record.complete:
            findings.append(
                VolumeFinding(release=push_record.release, key=push_record.key, problem="was not pushed to its end")
            )
        for recorded_file in push_record.files.values():
            if (problem := _find_problem(volume_bucket, recorded_file, deep=deep)) is not None:
                findings.append(VolumeFinding(release=push_record.release, key=recorded_file.key, problem=problem))
    return findings


def _find_problem(volume_bucket: VolumeBucket, recorded_file: RecordedFile, *, deep: bool) -> str | None:
    stored_object = volume_bucket.head_object(recorded_file.key)
    key = recorded_file.key
    if stored_object is None and recorded_file.kind == "model":
        # A pod's pull moves a model into the store and leaves a link, which S3 gateways need not show.
        key = blob_key(recorded_file.sha256)
        stored_object = volume_bucket.head_object(key)
    if stored_object is None:
        return "is missing"
    if stored_object.size_bytes != recorded_file.size_bytes:
        return f"has {stored_object.size_bytes} bytes instead of {recorded_file.size_bytes}"
    # A different ETag does not prove different bytes: a gateway may make it from the file's time.
    if not deep and (stored_object.etag == recorded_file.etag or key != recorded_file.key):
        return None
    actual = volume_bucket.read_sha256(key)
    return None if actual == recorded_file.sha256 else f"has the sha256 {actual} instead of {recorded_file.sha256}"


def find_garbage(volume_bucket: VolumeBucket, *, keep: Collection[str], now: datetime | None = None) -> VolumeGarbage:
    """Find what was pushed, or left by a killed push, and is not needed by any release of these names.

    Only what comfypin's records name goes: other files of the volume are not ours.
    """
    records = read_records(volume_bucket)
    kept_files = {
        key: recorded_file
        for push_record in records
        if push_record.release in keep
        for key, recorded_file in push_record.files.items()
    }
    kept_digests = {recorded_file.sha256 for recorded_file in kept_files.values()}
    doomed_objects: dict[str, VolumeObject] = {}
    for push_record in records:
        for recorded_file in push_record.files.values() if push_record.release not in keep else ():
            # A pod's pull moves a model into the store, so its bytes may be in either place.
            keys = [recorded_file.key] if recorded_file.key not in kept_files else []
            if recorded_file.kind == "model" and recorded_file.sha256 not in kept_digests:
                keys.append(blob_key(recorded_file.sha256))
            for key in keys:
                stored_object = volume_bucket.head_object(key)
                if stored_object is not None:
                    doomed_objects[key] = stored_object
    uploads = [
        multipart_upload for prefix in (MODELS, PACKS) for multipart_upload in volume_bucket.list_uploads(f"{prefix}/")
    ]
    given_up = (now or datetime.now(UTC)) - GIVEN_UP_AFTER
    return VolumeGarbage(
        objects=tuple(doomed_objects[key] for key in sorted(doomed_objects)),
        uploads=tuple(multipart_upload for multipart_upload in uploads if _begun_before(multipart_upload, given_up)),
        records=tuple(push_record for push_record in records if push_record.release not in keep),
    )


def _begun_before(multipart_upload: MultipartUpload, moment: datetime) -> bool:
    try:
        begun_at = datetime.fromisoformat(multipart_upload.begun)
    except ValueError:
        return False
    return begun_at.replace(tzinfo=begun_at.tzinfo or UTC) < moment


def remove_garbage(volume_bucket: VolumeBucket, garbage: VolumeGarbage) -> None:
    """Remove it, object by object; a release's record goes after its files, so that a kill loses nothing."""
    # Uploads first: their parts take room and belong to nobody.
    for multipart_upload in garbage.uploads:
        volume_bucket.abort_upload(multipart_upload.key, multipart_upload.upload_id)
    for volume_object in garbage.objects:
        volume_bucket.delete_object(volume_object.key)
    for push_record in garbage.records:
        volume_bucket.delete_object(f"{MODELS}/{STORE_FOLDER}/releases/{record_file_name(push_record.release)}")
        volume_bucket.delete_object(f"{RECORDS}/{record_file_name(push_record.release)}")
