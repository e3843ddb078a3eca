"""The Hugging Face hub: `hf://org/repo[@revision]/path`, first from caches on this machine, then from the hub."""

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from comfypin.http.client import HttpClient
from comfypin.models.errors import SourceFailed, SourceGated, SourceMissing, SourceRefused, UnknownSource, WrongDigest
from comfypin.models.http_file import HttpFile, linked_digest
from comfypin.models.interface import RemoteFile, SourceFacts, Wanted

_COMMIT = re.compile(r"[0-9a-f]{40}")
_KINDS = ("datasets", "spaces")
_REFS = ("pr", "convert")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a repository: `kind` is empty for models, else `datasets/` or `spaces/`."""

    kind: str
    repo: str
    revision: str
    path: str

    @classmethod
    def parse(cls, uri: str) -> "HubFile":
        """Read `hf://[datasets/]org/repo[@revision]/path[?rev=revision]`. Raises `UnknownSource`."""
        rest, _, query = uri[len("hf://") :].partition("?")
        parts = rest.split("/")
        kind = ""
        if parts[0] in _KINDS:
            kind = f"{parts.pop(0)}/"
        name, _, revision = (parts[1] if len(parts) > 2 else "").partition("@")
        if revision == "refs" and len(parts) > 4 and parts[2] in _REFS:
            # The hub's own revisions have slashes: refs/pr/3, refs/convert/parquet.
            revision = "/".join(["refs", parts.pop(2), parts.pop(2)])
        asked = urllib.parse.parse_qs(query).get("rev", [])
        revision = urllib.parse.unquote(revision or (asked[0] if asked else "main"))
        path = urllib.parse.unquote("/".join(parts[2:]))
        # Checked after unquoting: in a cache they are folders of this machine.
        steps = [parts[0], name, *revision.split("/"), *path.split("/")]
        if not all(steps) or ".." in steps:
            raise UnknownSource(uri=uri, reason="it is not hf://org/repo[@revision]/path")
        return cls(kind=kind, repo=f"{parts[0]}/{name}", revision=revision, path=path)

    def url(self, endpoint: str) -> str:
        """The address that gives the file."""
        revision = urllib.parse.quote(self.revision, safe="")
        return f"{endpoint}/{self.kind}{self.repo}/resolve/{revision}/{urllib.parse.quote(self.path)}"

    def page(self, endpoint: str) -> str:
        """The repository's page, for people."""
        return f"{endpoint}/{self.kind}{self.repo}"

    def pinned(self, commit: str) -> str:
        """The same file at a commit, which never changes."""
        return f"hf://{self.kind}{self.repo}@{commit}/{urllib.parse.quote(self.path)}"

    def cached(self, cache: Path) -> Path | None:
        """The file in a folder laid out as the hub's own cache, or None."""
        kind = self.kind.strip("/") or "models"
        folder = cache / f"{kind}--{self.repo.replace('/', '--')}"
        commit = self.revision
        if not _COMMIT.fullmatch(commit):
            try:
                commit = (folder / "refs" / self.revision).read_text().strip()
            except OSError:
                return None
        path = folder / "snapshots" / commit / self.path
        return path if path.is_file() else None


class HubSource:
    """`hf://` addresses."""

    def __init__(self, client: HttpClient, *, endpoint: str, caches: Sequence[Path] = ()) -> None:
        self._client = client
        self._endpoint = endpoint.rstrip("/")
        self._caches = caches

    def accepts(self, uri: str) -> bool:
        return uri.lower().startswith("hf://")

    def open(self, uri: str, wanted: Wanted, *, start: int = 0, length: int | None = None) -> RemoteFile:
        hub_file = HubFile.parse(uri)
        try:
            opened = HttpFile(self._client, hub_file.url(self._endpoint), uri, start=start, length=length)
        except SourceFailed as error:
            raise self._explained(error, hub_file, uri) from error
        said = linked_digest(opened.hops)
        if said is not None and wanted.sha256 is not None and said != wanted.sha256:
            opened.close()
            raise WrongDigest(uri=uri, expected=wanted.sha256.hex, actual=said.hex)
        return opened

    def cached(self, uri: str, wanted: Wanted) -> Path | None:
        """The file in RunPod's cache of hub models, or in the hub library's own. Raises `UnknownSource`."""
        hub_file = HubFile.parse(uri)
        for cache in self._caches:
            path = hub_file.cached(cache)
            if path is not None and wanted.size_bytes in {None, path.stat().st_size}:
                return path
        return None

    def facts(self, uri: str) -> SourceFacts:
        hub_file = HubFile.parse(uri)
        try:
            opened = HttpFile(self._client, hub_file.url(self._endpoint), uri, start=0, length=1)
        except SourceFailed as error:
            raise self._explained(error, hub_file, uri) from error
        opened.close()
        commit = _header(opened.hops, "x-repo-commit") or opened.header("X-Repo-Commit")
        return SourceFacts(
            uri=hub_file.pinned(commit) if commit and _COMMIT.fullmatch(commit) else uri,
            filename=PurePosixPath(hub_file.path).name,
            sha256=linked_digest(opened.hops) if opened.size_bytes is not None else None,
            size_bytes=opened.size_bytes,
        )

    def _explained(self, error: SourceFailed, hub_file: HubFile, uri: str) -> SourceFailed:
        """The hub's own words for why it refuses: https://huggingface.co/docs/hub/models-gated."""
        code = str(error.facts.get("code", ""))
        has_token = self._client.has_token(hub_file.url(self._endpoint))
        page = hub_file.page(self._endpoint)
        if code == "GatedRepo":
            return SourceGated(uri=uri, page=page, has_token=has_token)
        if code == "RepoNotFound" or (isinstance(error, SourceRefused) and not has_token):
            advice = "or HF_TOKEN may not read it" if has_token else "or is private: set HF_TOKEN"
            return SourceMissing(uri=uri, reason=f"the repository {hub_file.repo} does not exist, {advice}")
        if code == "RevisionNotFound":
            return SourceMissing(uri=uri, reason=f"{hub_file.repo} has no revision {hub_file.revision}")
        if code == "EntryNotFound":
            return SourceMissing(uri=uri, reason=f"{hub_file.repo} has no file {hub_file.path} at {hub_file.revision}")
        return error


def _header(hops: Sequence[tuple[int, Mapping[str, str]]], wanted: str) -> str | None:
    for _, headers in hops:
        for name, value in headers.items():
            if name.lower() == wanted:
                return value
    return None
