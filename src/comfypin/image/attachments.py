"""Attaches a document to an image in its registry, so that whoever has the image finds it.

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
_LIST_TRIES = 3


def attach_document(repository: ImageRepository, image: str, *, kind: str, data: bytes, title: str) -> str:
    """Attach a document of the media type `kind` to the image; return the digest of the attachment.

    Doing it again changes nothing. Raises `AttachFailed`, `LoginRefused`.
    """
    subject = repository.read_manifest(image)
    if subject is None or subject.digest != image:
        raise AttachFailed(reference=repository.reference, reason=f"the registry does not have {image}")
    config = _make_descriptor(_EMPTY_TYPE, repository.put_blob(_EMPTY), len(_EMPTY))
    document = _make_descriptor(kind, repository.put_blob(data), len(data))
    artifact = ImageManifest(
        media_type=MANIFEST,
        data=canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": kind,
                "config": config,
                "layers": [{**document, "annotations": {"org.opencontainers.image.title": title}}],
                "subject": _make_descriptor(subject.media_type, image, len(subject.data)),
            }
        ),
    )
    said = repository.put_manifest(artifact.digest, artifact)
    # The registry keeps no lists of referrers, so readers look for the tag instead.
    if said.get("OCI-Subject") is None:
        entry = {**_make_descriptor(MANIFEST, artifact.digest, len(artifact.data)), "artifactType": kind}
        _add_to_list(repository, image.replace(":", "-"), entry)
    return artifact.digest


def _add_to_list(repository: ImageRepository, tag: str, entry: dict[str, JsonValue]) -> None:
    """Add an entry to the list under a tag; check it after writing, since two writers at once overwrite each other."""
    # Registries have no conditional PUT, so the only way to notice another writer is to read again.
    for _ in range(_LIST_TRIES):
        entries = _read_entries(repository, tag)
        if any(other.get("digest") == entry["digest"] for other in entries):
            return
        index: JsonValue = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*entries, entry]}
        repository.put_manifest(tag, ImageManifest(media_type=INDEX, data=canonical_json(index)))
    if not any(other.get("digest") == entry["digest"] for other in _read_entries(repository, tag)):
        raise AttachFailed(reference=repository.reference, reason=f"other writers keep overwriting the list {tag}")


def _read_entries(repository: ImageRepository, tag: str) -> list[dict[str, JsonValue]]:
    found = repository.read_manifest(tag)
    if found is None:
        return []
    try:
        entries = json.loads(found.data).get("manifests", [])
    except (ValueError, AttributeError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AttachFailed(reference=repository.reference, reason=f"the tag {tag} holds no list of referrers")
    return entries


def _make_descriptor(media_type: str, digest: str, size: int) -> dict[str, JsonValue]:
    return {"mediaType": media_type, "digest": digest, "size": size}
