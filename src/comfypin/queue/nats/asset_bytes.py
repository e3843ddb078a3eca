"""Puts what was uploaded to a server into the jobs that name it, since no worker could ask for it."""

import base64
from collections.abc import Callable, Iterator, Mapping

ReadAsset = Callable[[str], Iterator[bytes]]
"""Reads an asset by its hash. Raises `OSError`, `ValueError` if it is not here."""


def with_asset_bytes(job_input: object, read_asset: ReadAsset | None) -> object:
    """Return a job's input with the bytes of the assets that it names."""
    inputs = job_input.get("inputs") if isinstance(job_input, Mapping) else None
    if read_asset is None or not isinstance(job_input, Mapping) or not isinstance(inputs, list):
        return job_input
    return {**job_input, "inputs": [_with_bytes(input_entry, read_asset) for input_entry in inputs]}


def _with_bytes(input_entry: object, read_asset: ReadAsset) -> object:
    if not isinstance(input_entry, Mapping) or not isinstance(input_entry.get("asset"), str):
        return input_entry
    try:
        asset_bytes = b"".join(read_asset(str(input_entry["asset"])))
    except (OSError, ValueError):
        return input_entry  # the worker says that it is not here
    kept_fields = {field_name: value for field_name, value in input_entry.items() if field_name != "asset"}
    return {**kept_fields, "data": base64.b64encode(asset_bytes).decode()}
