"""Saves a job's outputs into a folder: base64 decoded, URLs fetched; addresses of buckets are only noted."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from comfypin.atomic_files import atomic_file, contained_path
from comfypin.client.errors import OutputNotFetched
from comfypin.client.interface import RemoteOutput
from comfypin.digest import Digest, JsonValue
from comfypin.http.client import HttpClient
from comfypin.http.errors import HttpError
from comfypin.http.read_with_retries import iter_unless_stalled, read_with_retries
from comfypin.http.response import Response
from comfypin.outputs.file_names import candidate_names, safe_name
from comfypin.retry import RetryPolicy

OUTPUT_RETRIES = RetryPolicy(retries=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedOutput:
    """One output of a job: the file it was saved to, or the address where it was delivered."""

    filename: str
    path: Path | None = None
    uri: str | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form."""
        return {"filename": self.filename, "path": None if self.path is None else str(self.path), "uri": self.uri}


def save_outputs(outputs: Iterable[RemoteOutput], output_folder: Path, client: HttpClient) -> list[SavedOutput]:
    """Write outputs into a folder; files that are there stay, and one with the same bytes is not written again.

    Raises `OutputNotFetched`. A name that would lead out of the folder is refused after the others were saved.
    """
    saved: list[SavedOutput] = []
    refused: list[RemoteOutput] = []
    for output in outputs:
        if _leads_out(output):
            refused.append(output)
        elif output.data is not None:
            path = _write_output(output_folder, output, partial(_decode, output))
            saved.append(SavedOutput(filename=output.filename, path=path))
        elif output.url is not None and output.url.startswith(("https://", "http://")):
            path = _write_output(output_folder, output, partial(_fetch, client, output))
            saved.append(SavedOutput(filename=output.filename, path=path))
        else:
            saved.append(SavedOutput(filename=output.filename, uri=output.uri or output.url))
    if refused:
        reason = f"its name would leave {output_folder}; all others are saved"
        raise OutputNotFetched(filename=refused[0].filename, reason=reason)
    return saved


def _leads_out(output: RemoteOutput) -> bool:
    path = PurePosixPath(f"{output.subfolder}/{output.filename}" if output.subfolder else output.filename)
    return path.is_absolute() or ".." in path.parts or "\0" in str(path)


def _write_output(
    output_folder: Path, output: RemoteOutput, give: Callable[[Callable[[Iterable[bytes]], None]], None]
) -> Path:
    output_path, is_there = _find_place(output_folder, output)
    if is_there:
        return output_path

    # Called again for each try, so that digest and size begin anew with the file.
    def take(pieces: Iterable[bytes]) -> None:
        digest, size_bytes = hashlib.sha256(), 0
        with atomic_file(output_path) as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
                size_bytes += len(piece)
            # Inside the block: what fails the check never gets the file's name.
            _check(output, size_bytes, digest.hexdigest())

    try:
        give(take)
    except OSError as error:
        raise OutputNotFetched(
            filename=output.filename, reason=f"{output_path}: {(error.strerror or str(error)).lower()}"
        ) from error
    return output_path


def _check(output: RemoteOutput, size_bytes: int, sha256: str) -> None:
    if output.size_bytes not in (None, size_bytes):
        reason = f"{size_bytes} bytes came, and {output.size_bytes} were announced"
        raise OutputNotFetched(filename=output.filename, reason=reason)
    if output.sha256 is not None and output.sha256.removeprefix("sha256:").lower() != sha256:
        raise OutputNotFetched(filename=output.filename, reason="its bytes do not have the sha256 that was announced")


def _find_place(output_folder: Path, output: RemoteOutput) -> tuple[Path, bool]:
    """Return a free path in the folder, or that of a file with the same bytes and True. Raises `OutputNotFetched`."""
    for file_name in candidate_names(safe_name(output.filename, output.subfolder)):
        try:
            path = contained_path(output_folder, file_name)
            if not path.exists():
                return path, False
            # Saved by an earlier run: the same bytes under the same name are not written twice.
            if output.sha256 is not None and path.is_file() and Digest.of_file(path).hex == output.sha256:
                return path, True
        except (OSError, ValueError) as error:
            raise OutputNotFetched(filename=output.filename, reason=str(error)) from error
    raise AssertionError("there are names without end")


def _decode(output: RemoteOutput, take: Callable[[Iterable[bytes]], None]) -> None:
    base64_text = output.data or ""
    try:
        output_bytes = base64.b64decode(
            base64_text.partition(",")[2] if base64_text.startswith("data:") else base64_text, validate=True
        )
    except (binascii.Error, ValueError) as error:
        raise OutputNotFetched(filename=output.filename, reason=f"it is not base64 ({error})") from error
    take([output_bytes])


def _fetch(client: HttpClient, output: RemoteOutput, take: Callable[[Iterable[bytes]], None]) -> None:
    def save_body(response: Response) -> None:
        take(iter_unless_stalled(response))

    try:
        read_with_retries(client, output.url or "", save_body, policy=OUTPUT_RETRIES)
    except HttpError as error:
        # The address may be signed: it is not repeated.
        raise OutputNotFetched(filename=output.filename, reason=f"its server: {error.reason}") from error
