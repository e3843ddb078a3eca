"""Keys of delivered outputs, purely: a template filled in for one job, inside its prefix, no key twice."""

import re
import string
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath

from comfypin.digest import Digest
from comfypin.outputs.file_names import candidates, safe_name
from comfypin.outputs.interface import JobFacts, Output
from comfypin.storage.keys import joined_key

DEFAULT_TEMPLATE = "{prefix}/{job_id}/{filename}"
MANIFEST = "manifest.json"

_OF_JOB = {"job_id", "date", "release"}
_OF_OUTPUT = {"node", "counter", "digest", "filename", "stem", "ext", "subfolder"}
_FIELDS = _OF_JOB | _OF_OUTPUT
_PREFIX = "{prefix}/"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class TemplateInvalid(ValueError):
    """A template does not name keys; whoever parses it says who wrote it where. `expected` is what it is not."""

    def __init__(self, expected: str) -> None:
        super().__init__(f"not {expected}")
        self.expected = expected


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKeys:
    """The keys of one job: one for each output, in their order, and the manifest's."""

    outputs: tuple[str, ...]
    manifest: str


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """A template that was checked: below `{prefix}/`, known fields only, different for different jobs."""

    text: str

    @classmethod
    def parse(cls, text: str = DEFAULT_TEMPLATE) -> "KeyTemplate":
        """Read a template. `{prefix}/` is put in front where it is absent. Raises `TemplateInvalid`."""
        below = text.strip().removeprefix(_PREFIX)
        try:
            parts = list(string.Formatter().parse(below))
        except ValueError as exc:
            raise TemplateInvalid(f"a template with pairs of braces ({exc})") from exc
        fields = {name for _, name, _, _ in parts if name is not None}
        for _, name, spec, conversion in parts:
            if name is not None and (name not in _FIELDS or conversion):
                raise TemplateInvalid(f"a template of {', '.join(sorted(_FIELDS))} (no {name!r})")
            if spec and not (name == "counter" and re.fullmatch(r"0?[1-9]", spec)):
                raise TemplateInvalid(f"a template that formats only {{counter:05}} (not {name}:{spec})")
        if not fields & {"job_id", "digest"}:
            raise TemplateInvalid("a template with {job_id} or {digest}, without which two jobs would share their keys")
        if any(part in {"", ".", ".."} for part in below.split("/")):
            raise TemplateInvalid("a template without empty, '.' and '..' parts")
        return cls(below)

    def keys(self, job: JobFacts, outputs: Sequence[Output], *, prefix: str, day: date) -> JobKeys:
        """The job's keys: the same job, day and outputs give the same keys. Raises `KeyInvalid`."""
        of_job = {"job_id": safe_word(job.job_id), "date": day.isoformat(), "release": safe_word(job.release.name)}
        manifest = joined_key(prefix, f"{self._manifest_folder().format_map(of_job)}/{MANIFEST}")
        taken = {manifest}
        keys = []
        for output in outputs:
            wanted = joined_key(prefix, _without_empty_parts(self.text.format_map(of_job | _of_output(output))))
            key = wanted if wanted not in taken else _next_free(wanted, taken)
            taken.add(key)
            keys.append(key)
        return JobKeys(outputs=tuple(keys), manifest=manifest)

    def _manifest_folder(self) -> str:
        """Beside the outputs where their folder is the job's own, else a folder for the job."""
        folder, _, _ = self.text.rpartition("/")
        fields = {name for _, name, _, _ in string.Formatter().parse(folder) if name is not None}
        return folder if "job_id" in fields and fields <= _OF_JOB else "{job_id}"


def _next_free(key: str, taken: Set[str]) -> str:
    return next(name for name in map(str, candidates(PurePosixPath(key))) if name not in taken)


def safe_word(text: str) -> str:
    """A part of a key that says what the text says; different texts never give the same part."""
    if _PLAIN.fullmatch(text):
        return text
    kept = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._")[:60]
    return f"{kept or 'x'}-{Digest.of(text.encode(errors='surrogatepass')).hex[:16]}"


def _of_output(output: Output) -> dict[str, object]:
    name = safe_name(output.filename).name
    stem, dot, ext = name.rpartition(".")
    return {
        "node": safe_word(output.node_id),
        "counter": output.index + 1,
        "digest": output.sha256.hex,
        "filename": name,
        "stem": stem if dot and stem else name,
        "ext": ext if dot and stem else "bin",
        "subfolder": str(safe_name("-", output.subfolder).parent).removeprefix(".") if output.subfolder else "",
    }


def _without_empty_parts(key: str) -> str:
    return "/".join(part for part in key.split("/") if part)
