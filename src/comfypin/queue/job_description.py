"""What a job was asked for, as lists and searches show it: its workflow, its release, its texts. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from comfypin.digest import Digest, JsonValue
from comfypin.jobs.secret_fields import holds_secret
from comfypin.queue.interface import ApiName
from comfypin.queue.job_changes import JobChange

SCHEMA = """
CREATE TABLE IF NOT EXISTS job_descriptions (
    job_id TEXT PRIMARY KEY, api TEXT NOT NULL, workflow TEXT, release TEXT, shape TEXT NOT NULL, texts TEXT NOT NULL,
    outputs INTEGER NOT NULL DEFAULT 0, warnings INTEGER NOT NULL DEFAULT 0, error_name TEXT
);
CREATE INDEX IF NOT EXISTS descriptions_by_shape ON job_descriptions (shape);
CREATE TRIGGER IF NOT EXISTS forget_description AFTER DELETE ON jobs BEGIN
    DELETE FROM job_descriptions WHERE job_id = OLD.id;
END;
"""
# Enough for the prompts of a workflow; the column is read for every search.
_LONGEST_TEXTS = 8_000
_LONGEST_TEXT = 2_000  # what is longer is a picture
# Names are shown in one line of a list.
_LONGEST_NAME = 200
_OUTPUT_LISTS = ("images", "videos", "audio", "files")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDescription:
    """What a job was asked for. `workflow` is the name of a workflow of the image, or what the job calls its own.

    Jobs of one `shape` take about as long as each other: the same graph and numbers, whatever their seeds and texts.
    `texts` are those of its graph in lower case, for searches; empty if the graph may hold a secret.
    """

    api: ApiName
    workflow: str | None = None
    release: str | None = None
    shape: str = ""
    texts: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """What lists show of a job's end."""

    outputs: int = 0
    warnings: int = 0
    error_name: str | None = None
    error: str | None = None


def describe_job(job_input: object, *, api: ApiName, release: str | None) -> JobDescription:
    """Describe what a job asks for. Slow for a large input: walks all of it."""
    fields = job_input if isinstance(job_input, Mapping) else {}
    workflow_name, title = _name_in(fields, "workflow_name"), _name_in(fields, "title")
    asked = {"graph": _graph_of(fields), "set": fields.get("set")}
    is_searchable = not holds_secret(asked)
    return JobDescription(
        api=api,
        workflow=workflow_name or title,
        release=release,
        shape=_shape_of(workflow_name, asked),
        texts="\n".join(_texts_in(asked))[:_LONGEST_TEXTS].casefold() if is_searchable else "",
    )


def describe_end(output: Mapping[str, JsonValue] | None) -> JobEnd:
    """Describe a job's end by its result; None for a job that was cancelled."""
    if output is None:
        return JobEnd()
    # A video that its node reports among its images is in two lists.
    entries = [
        entry
        for list_name in _OUTPUT_LISTS
        for entry in _entries(output, list_name)
        if list_name != "images" or not isinstance(entry, Mapping) or entry.get("kind", "image") == "image"
    ]
    warnings = output.get("warnings")
    error, error_name = output.get("error"), output.get("error_type")
    return JobEnd(
        outputs=len(entries),
        warnings=len(warnings) if isinstance(warnings, list) else 0,
        error_name=None if error_name is None else str(error_name),
        error=None if error is None else str(error),
    )


def job_described(job_id: str, described: JobDescription) -> JobChange:
    """Return the change that keeps a job's description."""
    texts = described.texts.encode(errors="replace").decode()
    workflow = None if described.workflow is None else described.workflow.encode(errors="replace").decode()
    return JobChange(
        "INSERT OR REPLACE INTO job_descriptions (job_id, api, workflow, release, shape, texts) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (job_id, described.api, workflow, described.release, described.shape, texts),
    )


def end_described(job_id: str, end: JobEnd) -> JobChange:
    """Return the change that keeps what lists show of a job's end."""
    return JobChange(
        "UPDATE job_descriptions SET outputs = ?, warnings = ?, error_name = ? WHERE job_id = ?",
        (end.outputs, end.warnings, end.error_name, job_id),
    )


def _entries(output: Mapping[str, JsonValue], list_name: str) -> list[JsonValue]:
    entries = output.get(list_name)
    return entries if isinstance(entries, list) else []


def _name_in(fields: Mapping[object, object], field: str) -> str | None:
    workflow_name = fields.get(field)
    return workflow_name[:_LONGEST_NAME] or None if isinstance(workflow_name, str) else None


def _graph_of(fields: Mapping[object, object]) -> object:
    workflow = fields.get("workflow")
    if isinstance(workflow, Mapping) and isinstance(workflow.get("prompt"), Mapping):
        return workflow["prompt"]
    return workflow


def _shape_of(workflow_name: str | None, asked: Mapping[str, object]) -> str:
    """Digest what makes a job take its time."""
    plain = json.dumps([workflow_name, _without_chance(asked)], sort_keys=True, default=str)
    return Digest.of(plain.encode()).hex[:24]


def _without_chance(value: object, field_name: str = "") -> object:
    """Leave out what differs between two runs that take the same time: seeds, prompts, pictures, titles."""
    match value:
        case Mapping():
            return {
                str(key): _without_chance(item, str(key))
                for key, item in value.items()
                if key not in ("_meta", "pos", "size", "properties", "extra")
            }
        case list():
            return [_without_chance(item, field_name) for item in value]
        case str():
            return value if len(value) < 100 and not any(map(str.isspace, value)) else ""
        case int() if not isinstance(value, bool) and ("seed" in field_name or abs(value) > 1_000_000):
            return 0
        case _:
            return value


def _texts_in(value: object) -> Iterator[str]:
    match value:
        case Mapping():
            for item in value.values():
                yield from _texts_in(item)
        case list():
            for item in value:
                yield from _texts_in(item)
        case str() if 1 < len(value) <= _LONGEST_TEXT:
            yield value
