"""Makes the keys of delivered outputs: a template filled in for one job, below its prefix, no key twice (pure)."""

import re
import string
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath

from comfypin.digest import Digest
from comfypin.outputs.file_names import candidate_names, safe_name
from comfypin.outputs.interface import JobFacts, Output
from comfypin.storage.object_keys import join_key

DEFAULT_TEMPLATE = "{prefix}/{job_id}/{filename}"
MANIFEST = "manifest.json"

_OF_JOB = {"job_id", "date", "release"}
_OF_OUTPUT = {"node", "counter", "digest", "filename", "stem", "ext", "subfolder"}
_FIELDS = _OF_JOB | _OF_OUTPUT
_PREFIX = "{prefix}/"
# Such texts are safe as they are, so most keys stay readable.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class TemplateInvalid(ValueError):
    """Raised if a template cannot make keys; the caller adds where it is written. `expected` says what it should be."""

    def __init__(self, expected: str) -> None:
        super().__init__(f"not {expected}")
        self.expected = expected


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKeys:
    """The keys of one job: one for each output, in order, and the manifest's."""

    outputs: tuple[str, ...]
    manifest: str


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """A checked template: below `{prefix}/`, known fields only, and never the same key for two jobs."""

    text: str

    @classmethod
    def parse(cls, template_text: str = DEFAULT_TEMPLATE) -> "KeyTemplate":
        """Read a template. `{prefix}/` is put in front if it is absent. Raises `TemplateInvalid`."""
        below_prefix = template_text.strip().removeprefix(_PREFIX)
        try:
            template_parts = list(string.Formatter().parse(below_prefix))
        except ValueError as exception:
            raise TemplateInvalid(f"a template with matching braces ({exception})") from exception
        field_names = {field_name for _, field_name, _, _ in template_parts if field_name is not None}
        for _, field_name, format_spec, conversion in template_parts:
            if field_name is not None and (field_name not in _FIELDS or conversion):
                raise TemplateInvalid(
                    f"a template with no other fields than {', '.join(sorted(_FIELDS))} (not {field_name!r})"
                )
            if format_spec and not (field_name == "counter" and re.fullmatch(r"0?[1-9]", format_spec)):
                raise TemplateInvalid(f"a template that formats only {{counter:05}} (not {field_name}:{format_spec})")
        # A second job would overwrite the outputs of the first.
        if not field_names & {"job_id", "digest"}:
            raise TemplateInvalid("a template with {job_id} or {digest}, without which two jobs would share their keys")
        if any(key_part in {"", ".", ".."} for key_part in below_prefix.split("/")):
            raise TemplateInvalid("a template without empty, '.' and '..' parts")
        return cls(below_prefix)

    def make_keys(self, job: JobFacts, outputs: Sequence[Output], *, prefix: str, day: date) -> JobKeys:
        """Return the job's keys: the same job, day and outputs give the same keys. Raises `KeyInvalid`."""
        job_fields = {"job_id": safe_word(job.job_id), "date": day.isoformat(), "release": safe_word(job.release.name)}
        manifest_key = join_key(prefix, f"{self._manifest_folder().format_map(job_fields)}/{MANIFEST}")
        # An output that is called manifest.json must not replace the manifest.
        taken_keys = {manifest_key}
        object_keys = []
        for output in outputs:
            wanted_key = join_key(
                prefix, _without_empty_parts(self.text.format_map(job_fields | _output_fields(output)))
            )
            object_key = wanted_key if wanted_key not in taken_keys else _next_free(wanted_key, taken_keys)
            taken_keys.add(object_key)
            object_keys.append(object_key)
        return JobKeys(outputs=tuple(object_keys), manifest=manifest_key)

    def _manifest_folder(self) -> str:
        """Return the outputs' folder if it belongs to the job alone, else a folder for the job."""
        folder, _, _ = self.text.rpartition("/")
        field_names = {field_name for _, field_name, _, _ in string.Formatter().parse(folder) if field_name is not None}
        return folder if "job_id" in field_names and field_names <= _OF_JOB else "{job_id}"


def _next_free(wanted_key: str, taken_keys: Set[str]) -> str:
    return next(
        candidate for candidate in map(str, candidate_names(PurePosixPath(wanted_key))) if candidate not in taken_keys
    )


def safe_word(original_text: str) -> str:
    """Return a safe part of a key for a text, as readable as can be; different texts never give the same part."""
    if _PLAIN.fullmatch(original_text):
        return original_text
    kept_text = re.sub(r"[^A-Za-z0-9._-]+", "_", original_text).strip("._")[:60]
    # The digest tells texts apart that look the same after the cut.
    return f"{kept_text or 'x'}-{Digest.of(original_text.encode(errors='surrogatepass')).hex[:16]}"


def _output_fields(output: Output) -> dict[str, object]:
    file_name = safe_name(output.filename).name
    stem, separator, extension = file_name.rpartition(".")
    return {
        "node": safe_word(output.node_id),
        "counter": output.index + 1,
        "digest": output.sha256.hex,
        "filename": file_name,
        "stem": stem if separator and stem else file_name,
        "ext": extension if separator and stem else "bin",
        "subfolder": str(safe_name("-", output.subfolder).parent).removeprefix(".") if output.subfolder else "",
    }


def _without_empty_parts(object_key: str) -> str:
    return "/".join(key_part for key_part in object_key.split("/") if key_part)
