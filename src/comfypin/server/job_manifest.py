"""The manifest of a job: what it made, of which bytes, by which release; as JSON or for `sha256sum -c`. Pure."""

from collections.abc import Mapping, Sequence

from comfypin.digest import JsonValue
from comfypin.queue.interface import JobRow
from comfypin.queue.status_bodies import shown_time
from comfypin.server.output_index import ListedOutput

_FACTS = ("filename", "subfolder", "node", "kind", "media_type", "size_bytes", "width", "height", "sha256")


def job_manifest(row: JobRow, output: Mapping[str, JsonValue], files: Sequence[ListedOutput]) -> dict[str, JsonValue]:
    """Return the manifest of a job that has ended."""
    return {
        "schema": 1,
        "job_id": row.id,
        "status": row.state,
        "release": output.get("release"),
        "release_digest": output.get("release_digest"),
        "started_at": shown_time(row.started_at),
        "finished_at": shown_time(row.ended_at),
        "models": output.get("models") or [],
        "outputs": [_entry(listed_output) for listed_output in files],
    }


def checksum_lines(files: Sequence[ListedOutput]) -> str:
    """Return a line for each output whose digest is known, by the name under which it is downloaded."""
    return "".join(_checksum_line(listed_output) for listed_output in files if listed_output.sha256 is not None)


def _checksum_line(listed_output: ListedOutput) -> str:
    file_name = listed_output.filename.replace("\\", "/").rpartition("/")[2]
    escaped = file_name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    # A backslash in front tells sha256sum that the name is escaped.
    mark = "\\" if escaped != file_name else ""
    return f"{mark}{listed_output.sha256}  {escaped}\n"


def _entry(listed_output: ListedOutput) -> dict[str, JsonValue]:
    uri = listed_output.facts.get("uri")
    entry: dict[str, JsonValue] = {fact_name: listed_output.facts.get(fact_name) for fact_name in _FACTS}
    # A path of this machine means nothing to clients.
    entry["uri"] = uri if isinstance(uri, str) and "://" in uri else None
    entry["href"] = f"jobs/{listed_output.job_id}/outputs/{listed_output.position}"
    return {fact_name: value for fact_name, value in entry.items() if value not in (None, "")}
