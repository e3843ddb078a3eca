"""Something said about an image, put beside it in its registry so that whoever has the image finds it.

An artifact whose `subject` is the image; https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers.
A registry that does not keep such lists itself (it does not answer with `OCI-Subject`) gets the list under the tag
`sha256-<digest of the image>`, as the specification has it.
"""

import json

from comfypin.digest import JsonValue, canonical_json
from comfypin.image.errors import AttachFailed
from comfypin.image.registry_client import INDEX, MANIFEST, Manifest, Repository

CYCLONEDX = "application/vnd.cyclonedx+json"
_EMPTY_TYPE, _EMPTY = "application/vnd.oci.empty.v1+json", b"{}"
_TRIES = 3


def attach(repository: Repository, image: str, *, kind: str, data: bytes, title: str) -> str:
    """Attach a document of a media type to the image of a digest; the digest of what was attached.

    The same again changes nothing. Raises `AttachFailed`, `LoginRefused`.
    """
    subject = repository.manifest(image)
    if subject is None or subject.digest != image:
        raise AttachFailed(reference=repository.reference, reason=f"it does not have {image}")
    config = _descriptor(_EMPTY_TYPE, repository.put_blob(_EMPTY), len(_EMPTY))
    document = _descriptor(kind, repository.put_blob(data), len(data))
    artifact = Manifest(
        media_type=MANIFEST,
        data=canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": kind,
                "config": config,
                "layers": [{**document, "annotations": {"org.opencontainers.image.title": title}}],
                "subject": _descriptor(subject.media_type, image, len(subject.data)),
            }
        ),
    )
    said = repository.put_manifest(artifact.digest, artifact)
    if said.get("OCI-Subject") is None:
        entry = {**_descriptor(MANIFEST, artifact.digest, len(artifact.data)), "artifactType": kind}
        _list(repository, image.replace(":", "-"), entry)
    return artifact.digest


def _list(repository: Repository, tag: str, entry: dict[str, JsonValue]) -> None:
    """Add an entry to the list under a tag. Two who write at once overwrite each other, so it is looked at again."""
    for _ in range(_TRIES):
        entries = _entries(repository, tag)
        if any(other.get("digest") == entry["digest"] for other in entries):
            return
        index: JsonValue = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*entries, entry]}
        repository.put_manifest(tag, Manifest(media_type=INDEX, data=canonical_json(index)))
    if not any(other.get("digest") == entry["digest"] for other in _entries(repository, tag)):
        raise AttachFailed(reference=repository.reference, reason=f"others keep overwriting the list {tag}")


def _entries(repository: Repository, tag: str) -> list[dict[str, JsonValue]]:
    found = repository.manifest(tag)
    if found is None:
        return []
    try:
        entries = json.loads(found.data).get("manifests", [])
    except (ValueError, AttributeError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AttachFailed(reference=repository.reference, reason=f"what lies under {tag} is no list of referrers")
    return entries


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, JsonValue]:
    return {"mediaType": media_type, "digest": digest, "size": size}
