"""The manifest of a delivered job: what ran, and where its outputs are. Its presence proves that all are there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comfypin.digest import JsonValue
from comfypin.outputs.interface import JobFacts, Output
from comfypin.storage.interface import StoredObject

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredOutput:
    """An output, the object it became, and the seconds that its upload took."""

    output: Output
    object: StoredObject
    seconds: float


def make_manifest(job: JobFacts, stored_outputs: Sequence[StoredOutput], *, upload_s: float) -> bytes:
    """Return the manifest as JSON on one line: indenting a thousand outputs costs as much as sending a hundred."""
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "job_id": job.job_id,
        "release": job.release.name,
        "release_digest": job.release.digest_text,
        "inputs": {input_name: str(digest) for input_name, digest in job.inputs.items()},
        **({"models": {model_path: str(digest) for model_path, digest in job.models.items()}} if job.models else {}),
        "outputs": [_output_entry(stored_output) for stored_output in stored_outputs],
        "seconds": {
            **{phase_name: round(seconds, 3) for phase_name, seconds in job.phase_s.items()},
            "upload": round(upload_s, 3),
        },
    }
    manifest_text = json.dumps(manifest, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    # Lone surrogates, in names that are not valid text, become escapes of JSON: \ud800.
    return manifest_text.encode(errors="backslashreplace")


def _output_entry(stored_output: StoredOutput) -> Mapping[str, JsonValue]:
    output = stored_output.output
    picture_sides = {"width": output.width, "height": output.height}
    return {
        "key": stored_output.object.key,
        "uri": stored_output.object.uri,
        "sha256": output.sha256.hex,
        "size_bytes": stored_output.object.size_bytes,
        "media_type": output.media_type,
        "node": output.node_id,
        "kind": output.kind,
        "filename": output.filename,
        "subfolder": output.subfolder,
        "seconds": round(stored_output.seconds, 3),
        **{field_name: value for field_name, value in picture_sides.items() if value is not None},
    }
