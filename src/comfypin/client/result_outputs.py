"""Reads the outputs out of a job's result: ours, worker-comfyui's, and Comfy API v2's. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import TypeGuard

from comfypin.client.interface import RemoteOutput, RemoteProgress

_LISTS = ("outputs", "images", "videos", "audio", "files")


def outputs_of_result(result: Mapping[str, object]) -> tuple[RemoteOutput, ...]:
    """Return the outputs of our results and of worker-comfyui's `images`; what is in two lists counts once."""
    return tuple(
        _read_output(output_entry, number) for number, output_entry in enumerate(_output_entries(result), start=1)
    )


def outputs_of_comfy_job(document: Mapping[str, object]) -> tuple[RemoteOutput, ...]:
    """Return the outputs of a job of Comfy API v2."""
    listed = document.get("outputs")
    return tuple(
        RemoteOutput(
            filename=text_or_none(entry.get("name")) or f"output-{number}",
            node=text_or_none(entry.get("node_id")),
            media_type=text_or_none(entry.get("content_type")),
            size_bytes=count_or_none(entry.get("size_bytes")),
            asset_id=text_or_none(entry.get("id")),
            url=text_or_none(entry.get("url")),
        )
        for number, entry in enumerate(listed if isinstance(listed, list) else (), start=1)
        if isinstance(entry, Mapping)
    )


def progress_of(progress: object) -> RemoteProgress | None:
    """Return a server's progress, whichever form it has: the job list's, our worker's or API v2's."""
    if not isinstance(progress, Mapping):
        return None
    fraction = next(
        (progress[field_name] for field_name in ("fraction", "progress", "value") if field_name in progress), None
    )
    if not _is_number(fraction):
        return None
    return RemoteProgress(
        fraction=min(1.0, max(0.0, float(fraction))),
        node_id=text_or_none(progress.get("node_id") or progress.get("current_node")),
        node_title=text_or_none(progress.get("node_title") or progress.get("current_node_class")),
        nodes_done=count_or_none(progress.get("nodes_done")),
        nodes_total=count_or_none(progress.get("nodes_total")),
        step=count_or_none(progress.get("step")),
        steps=count_or_none(progress.get("steps")),
    )


def text_or_none(value: object) -> str | None:
    """Return the value if it is a text that is not empty, else None."""
    return value if isinstance(value, str) and value else None


def count_or_none(value: object) -> int | None:
    """Return a whole number from 0, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def texts_of(value: object) -> tuple[str, ...]:
    """Return a list's items as texts."""
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def seconds_or_none(value: object) -> float | None:
    """Return a number as seconds, else None."""
    return float(value) if _is_number(value) else None


def _is_number(value: object) -> TypeGuard[int | float]:
    # Compared first: an int may be too large for a float, and NaN compares false.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e18 < value < 1e18


def _output_entries(result: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    seen = set()
    for list_name in _LISTS:
        entries = result.get(list_name)
        for output_entry in entries if isinstance(entries, list) else ():
            if isinstance(output_entry, Mapping):
                identity = json.dumps(
                    [output_entry.get(field_name) for field_name in ("filename", "node", "sha256", "data")], default=str
                )
                if identity not in seen:
                    seen.add(identity)
                    yield output_entry


def _read_output(output_entry: Mapping[str, object], number: int) -> RemoteOutput:
    base64_text, url = text_or_none(output_entry.get("data")), text_or_none(output_entry.get("url"))
    uri = text_or_none(output_entry.get("uri"))
    if base64_text is not None and (output_entry.get("type", "base64") != "base64" or _is_address(base64_text)):
        # `data` is an address then: one to fetch from, or one that only says where the output was delivered.
        url = url or (base64_text if base64_text.startswith(("https://", "http://")) else None)
        base64_text, uri = None, uri or base64_text
    return RemoteOutput(
        filename=text_or_none(output_entry.get("filename")) or f"output-{number}",
        subfolder=text_or_none(output_entry.get("subfolder")) or "",
        node=text_or_none(output_entry.get("node")),
        media_type=text_or_none(output_entry.get("media_type")),
        size_bytes=count_or_none(output_entry.get("size_bytes")),
        sha256=text_or_none(output_entry.get("sha256")),
        url=url,
        uri=uri,
        data=base64_text,
    )


def _is_address(text: str) -> bool:
    # No base64 has a colon, and data URIs are bytes.
    return "://" in text[:16]
