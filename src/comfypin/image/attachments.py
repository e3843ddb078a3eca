"""Attaches a document to an image in its registry, so that whoever has the image can find it.

It is an artifact whose `subject` is the image;
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers. A registry that does not keep
such lists itself (it does not answer with `OCI-Subject`) gets the list under the tag `sha256-<digest of the image>`, as
the specification says.
"""

import json

from comfypin.digest import JsonValue, canonical_json
from comfypin.image.errors import AttachFailed
from comfypin.image.registry_client import INDEX, MANIFEST, ImageManifest, ImageRepository

CYCLONEDX = "application/vnd.cyclonedx+json"
# The specification demands a config even if there is none; this is its empty one.
_EMPTY_TYPE, _EMPTY = "application/vnd.oci.empty.v1+json", b"{}"
# Registries without the referrers API keep a shared list: another writer may have changed it meanwhile.
_LIST_TRIES = 3


def attach_document(
    repository: ImageRepository, image_digest: str, *, kind: str, document_bytes: bytes, title: str
) -> str:
    """Attach a document of the media type `kind` to the image; return the digest of the attachment.

    Doing it again changes nothing. Raises `AttachFailed`, `LoginRefused`.
    """
    subject_manifest = repository.read_manifest(image_digest)
    if subject_manifest is None or subject_manifest.digest != image_digest:
        raise AttachFailed(reference=repository.reference, reason=f"the registry does not have {image_digest}")
    config_descriptor = _make_descriptor(_EMPTY_TYPE, repository.put_blob(_EMPTY), len(_EMPTY))
    document_descriptor = _make_descriptor(kind, repository.put_blob(document_bytes), len(document_bytes))
    artifact_manifest = ImageManifest(
        media_type=MANIFEST,
        data=canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": kind,
                "config": config_descriptor,
                "layers": [{**document_descriptor, "annotations": {"org.opencontainers.image.title": title}}],
                "subject": _make_descriptor(subject_manifest.media_type, image_digest, len(subject_manifest.data)),
            }
        ),
    )
    response_headers = repository.put_manifest(artifact_manifest.digest, artifact_manifest)
    # The registry keeps no lists of referrers, so readers look for the tag instead.
    if response_headers.get("OCI-Subject") is None:
        list_entry = {
            **_make_descriptor(MANIFEST, artifact_manifest.digest, len(artifact_manifest.data)),
            "artifactType": kind,
        }
        _add_to_list(repository, image_digest.replace(":", "-"), list_entry)
    return artifact_manifest.digest


def _add_to_list(repository: ImageRepository, image_tag: str, list_entry: dict[str, JsonValue]) -> None:
    """Add an entry to the list under a tag; check it after writing, since two writers at once overwrite each other."""
    # Registries have no conditional PUT, so the only way to notice another writer is to read again.
    for _ in range(_LIST_TRIES):
        list_entries = _read_entries(repository, image_tag)
        if any(other_entry.get("digest") == list_entry["digest"] for other_entry in list_entries):
            return
        list_index: JsonValue = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*list_entries, list_entry]}
        repository.put_manifest(image_tag, ImageManifest(media_type=INDEX, data=canonical_json(list_index)))
    if not any(
        other_entry.get("digest") == list_entry["digest"] for other_entry in _read_entries(repository, image_tag)
    ):
        raise AttachFailed(
            reference=repository.reference, reason=f"other writers keep overwriting the list {image_tag}"
        )


def _read_entries(repository: ImageRepository, image_tag: str) -> list[dict[str, JsonValue]]:
    list_manifest = repository.read_manifest(image_tag)
    if list_manifest is None:
        return []
    try:
        list_entries = json.loads(list_manifest.data).get("manifests", [])
    except (ValueError, AttributeError):
        list_entries = None
    if not isinstance(list_entries, list) or not all(isinstance(list_entry, dict) for list_entry in list_entries):
        raise AttachFailed(reference=repository.reference, reason=f"the tag {image_tag} holds no list of referrers")
    return list_entries


def _make_descriptor(media_type: str, digest: str, size_bytes: int) -> dict[str, JsonValue]:
    return {"mediaType": media_type, "digest": digest, "size": size_bytes}
