"""Civitai: `civitai://<version id>[/<file id>]` and `civitai://sha256/<hex>`, by its public REST API.

https://developer.civitai.com/site/reference/model-versions
"""

import json
import re
from dataclasses import dataclass

from comfypin.digest import Digest
from comfypin.http.client import HttpClient
from comfypin.models.errors import SourceFailed, SourceMissing, SourceRefused, UnknownSource, WrongDigest
from comfypin.models.http_file import HttpFile
from comfypin.models.http_responses import to_refusal
from comfypin.models.interface import ExpectedFile, SourceFacts

# People paste all of these forms from Civitai's pages and from other tools.
_BY_VERSION = re.compile(r"civitai://(?:version/)?(\d+)(?:(?:/|/file/|\?file=)(\d+))?/?")
_BY_DIGEST = re.compile(r"civitai://(?:sha256|hash)[:/]([0-9a-fA-F]{64})/?")

# A model with hundreds of versions is a few megabytes of JSON.
MAX_JSON_BYTES = 16 << 20

# Civitai's types of models and the folders of ComfyUI that they go to.
FOLDERS = {
    "Checkpoint": "checkpoints",
    "LORA": "loras",
    "LoCon": "loras",
    "DoRA": "loras",
    "TextualInversion": "embeddings",
    "Hypernetwork": "hypernetworks",
    "Controlnet": "controlnet",
    "Upscaler": "upscale_models",
    "VAE": "vae",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _CivitaiFile:
    """A file as the API describes it."""

    name: str
    url: str
    sha256: Digest | None
    folder: str | None
    version_id: str
    file_id: str


class CivitaiSource:
    """`civitai://` addresses."""

    def __init__(self, client: HttpClient, *, endpoint: str) -> None:
        self._client = client
        self._endpoint = endpoint.rstrip("/")

    def accepts(self, address: str) -> bool:
        return address.lower().startswith("civitai://")

    def open(self, address: str, expected: ExpectedFile, *, start: int = 0, length: int | None = None) -> HttpFile:
        civitai_file = self._find_file(address, expected.sha256)
        # Known before a byte is fetched, since the API names the digest.
        if expected.sha256 is not None and civitai_file.sha256 is not None and civitai_file.sha256 != expected.sha256:
            raise WrongDigest(uri=address, expected=expected.sha256.hex, actual=civitai_file.sha256.hex)
        try:
            return HttpFile(self._client, civitai_file.url, address, start=start, length=length, led_by=self._endpoint)
        except SourceRefused as error:
            raise self._explain_refusal(address) from error

    def facts(self, address: str) -> SourceFacts:
        civitai_file = self._find_file(address, None)
        try:
            opened_file = HttpFile(self._client, civitai_file.url, address, start=0, length=1, led_by=self._endpoint)
        except SourceRefused as error:
            raise self._explain_refusal(address) from error
        opened_file.close()
        return SourceFacts(
            uri=f"civitai://{civitai_file.version_id}/{civitai_file.file_id}",
            filename=civitai_file.name,
            sha256=civitai_file.sha256,
            size_bytes=opened_file.size_bytes,
            folder=civitai_file.folder,
        )

    def _find_file(self, address: str, expected: Digest | None) -> _CivitaiFile:
        by_version = _BY_VERSION.fullmatch(address)
        by_digest = _BY_DIGEST.fullmatch(address)
        if by_version:
            file_path = f"/api/v1/model-versions/{by_version[1]}"
        elif by_digest:
            file_path = f"/api/v1/model-versions/by-hash/{by_digest[1].lower()}"
            expected = Digest(by_digest[1].lower())
        else:
            raise UnknownSource(
                uri=address, reason="it is not civitai://<version id>[/<file id>] or civitai://sha256/<hex>"
            )
        return self._choose_file(
            address, self._get_version(address, file_path), expected, by_version[2] if by_version else None
        )

    def _get_version(self, address: str, path: str) -> dict[str, object]:
        response = self._client.get(self._endpoint + path, {"Accept": "application/json"})
        if response.status != 200:
            error = to_refusal(response, address)
            raise self._explain_refusal(address) if isinstance(error, SourceRefused) else error
        try:
            response_json = json.loads(response.read_text(MAX_JSON_BYTES))
        except ValueError as error:
            raise SourceFailed(uri=address, reason="Civitai's answer is not JSON") from error
        if not isinstance(response_json, dict):
            raise SourceFailed(uri=address, reason="Civitai's answer is not what its API promises")
        return response_json

    def _choose_file(
        self, address: str, version: dict[str, object], expected: Digest | None, file_id: str | None
    ) -> _CivitaiFile:
        files = version.get("files")
        model = version.get("model")
        folder = FOLDERS.get(str(model.get("type"))) if isinstance(model, dict) else None
        civitai_file = [
            parsed
            for entry in (files if isinstance(files, list) else [])
            if (parsed := _parse_file(entry, str(version.get("id")), folder)) is not None
        ]
        if file_id is not None:
            chosen = [entry for entry in civitai_file if entry.file_id == file_id]
        else:
            chosen = [
                entry for entry in civitai_file if expected is not None and entry.sha256 == expected
            ] or civitai_file
        if not chosen:
            which = f"file {file_id}" if file_id else "file"
            raise SourceMissing(uri=address, reason=f"the version has no {which} on Civitai")
        return chosen[0]

    def _explain_refusal(self, address: str) -> SourceRefused:
        if self._client.has_token(self._endpoint):
            reason = "Civitai refuses the token: the model may be in early access or withdrawn; look at its page"
        else:
            reason = "Civitai wants a login for this model: set CIVITAI_TOKEN"
        return SourceRefused(uri=address, reason=reason)


def _parse_file(file_entry: object, version_id: str, folder: str | None) -> _CivitaiFile | None:
    # Strangers' JSON: what does not have this shape is not a file.
    match file_entry:
        case {"id": int(file_id), "name": str(name), "downloadUrl": str(url)}:
            hashes = file_entry.get("hashes") if isinstance(file_entry, dict) else None
            sha256_text = hashes.get("SHA256") if isinstance(hashes, dict) else None
            try:
                digest = Digest.parse(sha256_text) if isinstance(sha256_text, str) else None
            except ValueError:
                digest = None
            return _CivitaiFile(
                name=name, url=url, sha256=digest, folder=folder, version_id=version_id, file_id=str(file_id)
            )
        case _:
            return None
