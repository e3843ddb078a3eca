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
        "outputs": [_entry(file) for file in files],
    }


def checksum_lines(files: Sequence[ListedOutput]) -> str:
    """Return a line for each output whose digest is known, by the name under which it is downloaded."""
    return "".join(_checksum_line(file) for file in files if file.sha256 is not None)


def _checksum_line(file: ListedOutput) -> str:
    file_name = file.filename.replace("\\", "/").rpartition("/")[2]
    escaped = file_name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    # A backslash in front tells sha256sum that the name is escaped.
    mark = "\\" if escaped != file_name else ""
    return f"{mark}{file.sha256}  {escaped}\n"


def _entry(file: ListedOutput) -> dict[str, JsonValue]:
    uri = file.facts.get("uri")
    entry: dict[str, JsonValue] = {fact_name: file.facts.get(fact_name) for fact_name in _FACTS}
    # A path of this machine means nothing to clients.
    entry["uri"] = uri if isinstance(uri, str) and "://" in uri else None
    entry["href"] = f"jobs/{file.job_id}/outputs/{file.position}"
    return {fact_name: value for fact_name, value in entry.items() if value not in (None, "")}
