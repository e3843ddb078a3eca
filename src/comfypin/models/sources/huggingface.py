"""Reads the Hugging Face hub: `hf://org/repo[@revision]/path`, from caches on this machine first, then from the hub."""

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from comfypin.http.client import HttpClient
from comfypin.models.errors import SourceFailed, SourceGated, SourceMissing, SourceRefused, UnknownSource, WrongDigest
from comfypin.models.http_file import HttpFile, find_linked_digest
from comfypin.models.interface import ExpectedFile, RemoteFile, SourceFacts

_COMMIT = re.compile(r"[0-9a-f]{40}")
# Repositories of models have no prefix on the hub.
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
    def parse_uri(cls, address: str) -> "HubFile":
        """Parse `hf://[datasets/]org/repo[@revision]/path[?rev=revision]`. Raises `UnknownSource`."""
        rest, _, query = address[len("hf://") :].partition("?")
        path_parts = rest.split("/")
        repo_kind = ""
        if path_parts[0] in _KINDS:
            repo_kind = f"{path_parts.pop(0)}/"
        repo_name, _, revision = (path_parts[1] if len(path_parts) > 2 else "").partition("@")
        if revision == "refs" and len(path_parts) > 4 and path_parts[2] in _REFS:
            # The hub's own revisions have slashes: refs/pr/3, refs/convert/parquet.
            revision = "/".join(["refs", path_parts.pop(2), path_parts.pop(2)])
        query_revision = urllib.parse.parse_qs(query).get("rev", [])
        revision = urllib.parse.unquote(revision or (query_revision[0] if query_revision else "main"))
        file_path = urllib.parse.unquote("/".join(path_parts[2:]))
        # Checked after unquoting: in a cache they are folders of this machine.
        path_steps = [path_parts[0], repo_name, *revision.split("/"), *file_path.split("/")]
        if not all(path_steps) or ".." in path_steps:
            raise UnknownSource(uri=address, reason="it is not hf://org/repo[@revision]/path")
        return cls(kind=repo_kind, repo=f"{path_parts[0]}/{repo_name}", revision=revision, path=file_path)

    def file_url(self, endpoint: str) -> str:
        """Return the URL of the file."""
        revision = urllib.parse.quote(self.revision, safe="")
        return f"{endpoint}/{self.kind}{self.repo}/resolve/{revision}/{urllib.parse.quote(self.path)}"

    def repository_page(self, endpoint: str) -> str:
        """Return the URL of the repository's page, for people."""
        return f"{endpoint}/{self.kind}{self.repo}"

    def pinned_uri(self, commit: str) -> str:
        """Return the address of the same file at a commit, which never changes."""
        return f"hf://{self.kind}{self.repo}@{commit}/{urllib.parse.quote(self.path)}"

    def find_cached(self, cache: Path) -> Path | None:
        """Return the file's path in a folder laid out as the hub's own cache, or None."""
        kind = self.kind.strip("/") or "models"
        folder = cache / f"{kind}--{self.repo.replace('/', '--')}"
        commit = self.revision
        # The cache keeps branches and tags as files that hold their commit.
        if not _COMMIT.fullmatch(commit):
            try:
                commit = (folder / "refs" / self.revision).read_text().strip()
            except OSError:
                return None
        file_path = folder / "snapshots" / commit / self.path
        return file_path if file_path.is_file() else None


def find_hub_address(url: str, endpoint: str) -> str | None:
    """Return `hf://org/repo@revision/path` for a link to a file on the hub's pages, or None if it is another address.

    Links to download (`/resolve/`, `/raw/`) and to look at (`/blob/`), with or without `?download=true`.
    """
    parts = urllib.parse.urlsplit(url)
    hosts = {"huggingface.co", "www.huggingface.co", "hf.co", urllib.parse.urlsplit(endpoint).netloc}
    if parts.scheme not in ("http", "https") or parts.netloc not in hosts:
        return None
    steps = parts.path.strip("/").split("/")
    kind = f"{steps.pop(0)}/" if steps[0] in _KINDS else ""
    if len(steps) < 5 or steps[2] not in ("resolve", "blob", "raw") or not all(steps):
        return None
    # A revision with slashes, such as refs%2Fpr%2F3, is one step of the link.
    revision = urllib.parse.quote(urllib.parse.unquote(steps[3]), safe="/")
    return f"hf://{kind}{steps[0]}/{steps[1]}@{revision}/{'/'.join(steps[4:])}"


class HubSource:
    """`hf://` addresses."""

    def __init__(self, client: HttpClient, *, endpoint: str, caches: Sequence[Path] = ()) -> None:
        self._client = client
        self._endpoint = endpoint.rstrip("/")
        self._caches = caches

    def accepts(self, address: str) -> bool:
        return address.lower().startswith("hf://")

    def open(self, address: str, expected: ExpectedFile, *, start: int = 0, length: int | None = None) -> RemoteFile:
        hub_file = HubFile.parse_uri(address)
        try:
            opened_file = HttpFile(self._client, hub_file.file_url(self._endpoint), address, start=start, length=length)
        except SourceFailed as error:
            raise self._explain_failure(error, hub_file, address) from error
        linked_sha256 = find_linked_digest(opened_file.hops)
        # The redirect names the digest, so a wrong file costs no download.
        if linked_sha256 is not None and expected.sha256 is not None and linked_sha256 != expected.sha256:
            opened_file.close()
            raise WrongDigest(uri=address, expected=expected.sha256.hex, actual=linked_sha256.hex)
        return opened_file

    def cached(self, address: str, expected: ExpectedFile) -> Path | None:
        """Return the file in Runpod's cache of hub models, or in the hub library's own. Raises `UnknownSource`."""
        hub_file = HubFile.parse_uri(address)
        for cache in self._caches:
            file_path = hub_file.find_cached(cache)
            if file_path is not None and expected.size_bytes in {None, file_path.stat().st_size}:
                return file_path
        return None

    def facts(self, address: str) -> SourceFacts:
        hub_file = HubFile.parse_uri(address)
        try:
            opened_file = HttpFile(self._client, hub_file.file_url(self._endpoint), address, start=0, length=1)
        except SourceFailed as error:
            raise self._explain_failure(error, hub_file, address) from error
        opened_file.close()
        # A branch becomes the commit that answered, so that the lock names what was seen.
        commit = _find_header(opened_file.hops, "x-repo-commit") or opened_file.first_header("X-Repo-Commit")
        return SourceFacts(
            uri=hub_file.pinned_uri(commit) if commit and _COMMIT.fullmatch(commit) else address,
            filename=PurePosixPath(hub_file.path).name,
            sha256=find_linked_digest(opened_file.hops) if opened_file.size_bytes is not None else None,
            size_bytes=opened_file.size_bytes,
        )

    def _explain_failure(self, error: SourceFailed, hub_file: HubFile, address: str) -> SourceFailed:
        """Return the failure with the hub's reason: https://huggingface.co/docs/hub/models-gated."""
        code = str(error.facts.get("code", ""))
        has_token = self._client.has_token(hub_file.file_url(self._endpoint))
        page = hub_file.repository_page(self._endpoint)
        if code == "GatedRepo":
            return SourceGated(uri=address, page=page, has_token=has_token)
        if code == "RepoNotFound" or (isinstance(error, SourceRefused) and not has_token):
            advice = "or HF_TOKEN may not read it" if has_token else "or is private: set HF_TOKEN"
            return SourceMissing(uri=address, reason=f"the repository {hub_file.repo} does not exist, {advice}")
        if code == "RevisionNotFound":
            return SourceMissing(uri=address, reason=f"{hub_file.repo} has no revision {hub_file.revision}")
        if code == "EntryNotFound":
            return SourceMissing(
                uri=address, reason=f"{hub_file.repo} has no file {hub_file.path} at {hub_file.revision}"
            )
        return error


def _find_header(hops: Sequence[tuple[int, Mapping[str, str]]], header_name: str) -> str | None:
    for _, headers in hops:
        for file_name, value in headers.items():
            if file_name.lower() == header_name:
                return value
    return None
