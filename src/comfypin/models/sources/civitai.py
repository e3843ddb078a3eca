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
from comfypin.models.http_responses import refusal
from comfypin.models.interface import SourceFacts, Wanted

_BY_VERSION = re.compile(r"civitai://(?:version/)?(\d+)(?:(?:/|/file/|\?file=)(\d+))?/?")
_BY_DIGEST = re.compile(r"civitai://(?:sha256|hash)[:/]([0-9a-fA-F]{64})/?")

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
class _Found:
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

    def accepts(self, uri: str) -> bool:
        return uri.lower().startswith("civitai://")

    def open(self, uri: str, wanted: Wanted, *, start: int = 0, length: int | None = None) -> HttpFile:
        found = self._find(uri, wanted.sha256)
        if wanted.sha256 is not None and found.sha256 is not None and found.sha256 != wanted.sha256:
            raise WrongDigest(uri=uri, expected=wanted.sha256.hex, actual=found.sha256.hex)
        try:
            return HttpFile(self._client, found.url, uri, start=start, length=length, led_by=self._endpoint)
        except SourceRefused as error:
            raise self._explained(uri) from error

    def facts(self, uri: str) -> SourceFacts:
        found = self._find(uri, None)
        try:
            opened = HttpFile(self._client, found.url, uri, start=0, length=1, led_by=self._endpoint)
        except SourceRefused as error:
            raise self._explained(uri) from error
        opened.close()
        return SourceFacts(
            uri=f"civitai://{found.version_id}/{found.file_id}",
            filename=found.name,
            sha256=found.sha256,
            size_bytes=opened.size_bytes,
            folder=found.folder,
        )

    def _find(self, uri: str, wanted: Digest | None) -> _Found:
        by_version = _BY_VERSION.fullmatch(uri)
        by_digest = _BY_DIGEST.fullmatch(uri)
        if by_version:
            path = f"/api/v1/model-versions/{by_version[1]}"
        elif by_digest:
            path = f"/api/v1/model-versions/by-hash/{by_digest[1].lower()}"
            wanted = Digest(by_digest[1].lower())
        else:
            raise UnknownSource(
                uri=uri, reason="it is not civitai://<version id>[/<file id>] or civitai://sha256/<hex>"
            )
        return self._choose(uri, self._ask(uri, path), wanted, by_version[2] if by_version else None)

    def _ask(self, uri: str, path: str) -> dict[str, object]:
        answer = self._client.get(self._endpoint + path, {"Accept": "application/json"})
        if answer.status != 200:
            error = refusal(answer, uri)
            raise self._explained(uri) if isinstance(error, SourceRefused) else error
        try:
            value = json.loads(answer.read_text(MAX_JSON_BYTES))
        except ValueError as error:
            raise SourceFailed(uri=uri, reason="Civitai's answer is not JSON") from error
        if not isinstance(value, dict):
            raise SourceFailed(uri=uri, reason="Civitai's answer is not what its API promises")
        return value

    def _choose(self, uri: str, version: dict[str, object], wanted: Digest | None, file_id: str | None) -> _Found:
        files = version.get("files")
        model = version.get("model")
        folder = FOLDERS.get(str(model.get("type"))) if isinstance(model, dict) else None
        found = [
            parsed
            for entry in (files if isinstance(files, list) else [])
            if (parsed := _parse(entry, str(version.get("id")), folder)) is not None
        ]
        if file_id is not None:
            chosen = [entry for entry in found if entry.file_id == file_id]
        else:
            chosen = [entry for entry in found if wanted is not None and entry.sha256 == wanted] or found
        if not chosen:
            which = f"file {file_id}" if file_id else "file"
            raise SourceMissing(uri=uri, reason=f"the version has no {which} on Civitai")
        return chosen[0]

    def _explained(self, uri: str) -> SourceRefused:
        if self._client.has_token(self._endpoint):
            reason = "Civitai refuses the token: the model may be in early access or withdrawn; look at its page"
        else:
            reason = "Civitai wants a login for this model: set CIVITAI_TOKEN"
        return SourceRefused(uri=uri, reason=reason)


def _parse(entry: object, version_id: str, folder: str | None) -> _Found | None:
    match entry:
        case {"id": int(file_id), "name": str(name), "downloadUrl": str(url)}:
            hashes = entry.get("hashes") if isinstance(entry, dict) else None
            text = hashes.get("SHA256") if isinstance(hashes, dict) else None
            try:
                digest = Digest.parse(text) if isinstance(text, str) else None
            except ValueError:
                digest = None
            return _Found(name=name, url=url, sha256=digest, folder=folder, version_id=version_id, file_id=str(file_id))
        case _:
            return None
