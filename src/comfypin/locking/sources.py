"""Fetches ComfyUI and nodes as a lock sees them: a commit or an archive, what it requires, its install script."""

import io
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from comfypin.digest import Digest
from comfypin.http.proxies import Proxies
from comfypin.lease import process_token
from comfypin.lock.model import Lock, NodePin
from comfypin.lock.requirements import RequirementSet, decode_requirements, read_requirements
from comfypin.locking.errors import ArchiveUnreadable
from comfypin.locking.node_registry import REGISTRY_SCHEME, NodeRegistry
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.wheel_contents import WheelReader
from comfypin.locking.whole_sources import require_whole_source
from comfypin.tools.download import download_file
from comfypin.tools.git import CommitSource, list_tree, read_blobs
from comfypin.tools.git_remote import resolve_ref

# A zip may claim any size: requirement files and scripts are read only if they are small.
MAX_TEXT_BYTES = 4 << 20
# Enough to hide the waiting; hosts of repositories limit clients that open many more at once.
WORKERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstreams:
    """Where sources come from: git commits, the node registry, the folder that keeps its archives by digest."""

    commits: CommitSource
    registry: NodeRegistry
    archives: Path
    proxies: Proxies = field(default_factory=Proxies)

    @property
    def wheels(self) -> WheelReader:
        """Return a reader of wheels, which keeps its notes beside the archives."""
        return WheelReader(notes_folder=self.archives.parent / "wheel-notes", proxies=self.proxies)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedSource:
    """A repository at its commit, or an archive: as much of it as a lock needs to know."""

    spec: RepoSpec
    needs: RequirementSet
    commit: str | None = None
    archive: str | None = None
    sha256: Digest | None = None
    install_script: bytes | None = None
    has_main: bool = False


def fetch_source(
    repo_spec: RepoSpec, *, origin: str, upstreams: Upstreams, dropped: frozenset[str] = frozenset()
) -> ResolvedSource:
    """Fetch a source at its ref (a registry's pack at its version), and read what it requires.

    Raises the errors of git, of downloads and of the registry.
    """
    if repo_spec.repo.startswith(REGISTRY_SCHEME):
        registry_version = upstreams.registry.find_version(repo_spec.repo.removeprefix(REGISTRY_SCHEME), repo_spec.ref)
        # "latest" becomes the version that it is today.
        repo_spec = RepoSpec(repo=repo_spec.repo, ref=registry_version.version, folder=repo_spec.name)
        return _fetch_archive(
            repo_spec, registry_version.archive, None, upstreams=upstreams, origin=origin, dropped=dropped
        )
    commit = resolve_ref(repo_spec.repo, repo_spec.ref)
    stored_folder = upstreams.commits.obtain_repository(repo_spec.repo, commit)
    require_whole_source(upstreams.commits, stored_folder, repo_spec.repo, commit, origin=origin)
    entries = {
        tree_entry.path: tree_entry
        for tree_entry in list_tree(stored_folder, commit)
        if tree_entry.mode.startswith("100")
    }

    def read_blob(path: str) -> bytes | None:
        if path not in entries:
            return None
        return next(blob_bytes for _, blob_bytes in read_blobs(stored_folder, [entries[path]], repo_spec.repo, commit))

    needs, script = read_source_requirements(read_blob, origin, dropped), read_blob("install.py")
    return ResolvedSource(
        spec=repo_spec, commit=commit, needs=needs, install_script=script, has_main="main.py" in entries
    )


def refetch_source(
    node_pin: NodePin, *, origin: str, upstreams: Upstreams, dropped: frozenset[str] = frozenset()
) -> ResolvedSource:
    """Fetch the source that a pin already names: the same commit, the same archive."""
    if node_pin.archive is None:
        repo_spec = RepoSpec(repo=str(node_pin.repo), ref=node_pin.commit or node_pin.ref, folder=node_pin.folder)
        return fetch_source(repo_spec, origin=origin, upstreams=upstreams, dropped=dropped)
    repo_spec = RepoSpec(repo=f"{REGISTRY_SCHEME}{node_pin.name}", ref=node_pin.ref, folder=node_pin.folder)
    return _fetch_archive(
        repo_spec, node_pin.archive, node_pin.sha256, upstreams=upstreams, origin=origin, dropped=dropped
    )


def _fetch_archive(
    spec: RepoSpec,
    archive_url: str,
    known_digest: Digest | None,
    *,
    upstreams: Upstreams,
    origin: str,
    dropped: frozenset[str] = frozenset(),
) -> ResolvedSource:
    archive_path = upstreams.archives / f"{known_digest.hex}.zip" if known_digest else None
    if archive_path is None or not archive_path.is_file():
        # A name of this process, so that two that fetch the same archive do not write into one file.
        arriving = upstreams.archives / f".tmp-{process_token()}.zip"
        archive_digest = download_file(
            archive_url, arriving, (known_digest,) if known_digest else (), proxies=upstreams.proxies
        )
        archive_path = arriving.replace(upstreams.archives / f"{archive_digest.hex}.zip")
    # Hashed again: the folder is a cache that anybody may have touched.
    archive_digest = Digest.of_file(archive_path)
    try:
        with zipfile.ZipFile(io.BytesIO(archive_path.read_bytes())) as archive:
            # Read from the directory, so that nothing large is unpacked to learn its size.
            sizes = {zip_entry.filename: zip_entry.file_size for zip_entry in archive.infolist()}

            def read_member(path: str) -> bytes | None:
                return archive.read(path) if sizes.get(path, MAX_TEXT_BYTES) < MAX_TEXT_BYTES else None

            needs, script = read_source_requirements(read_member, origin, dropped), read_member("install.py")
    except (zipfile.BadZipFile, RuntimeError, OSError, NotImplementedError) as error:
        raise ArchiveUnreadable(url=archive_url, reason=str(error)) from error
    return ResolvedSource(spec=spec, archive=archive_url, sha256=archive_digest, needs=needs, install_script=script)


def read_source_requirements(
    read: Callable[[str], bytes | None], origin: str, dropped: frozenset[str]
) -> RequirementSet:
    """Read a source's requirements.txt, else the dependencies in its pyproject.toml."""

    def read_text(path: str) -> str | None:
        file_bytes = read(str(PurePosixPath(path)))
        return None if file_bytes is None else decode_requirements(file_bytes)

    # ComfyUI-Manager installs requirements.txt if there is one, and looks no further.
    if read_text("requirements.txt") is not None:
        return read_requirements("requirements.txt", origin=origin, read=read_text, dropped=dropped)
    try:
        project_table = tomllib.loads(read_text("pyproject.toml") or "").get("project", {})
        dependency_lines = project_table.get("dependencies", []) if isinstance(project_table, dict) else []
    except tomllib.TOMLDecodeError as error:
        return RequirementSet(unusable=(f"{origin}: pyproject.toml is not TOML ({error})",))
    listed = "\n".join(str(line) for line in dependency_lines) if isinstance(dependency_lines, list) else ""
    return read_requirements("pyproject.toml", origin=origin, read=lambda _: listed, dropped=dropped)


def named_ref(resolved_source: ResolvedSource) -> str | None:
    """Return the branch or tag that was asked for, or None for a commit, in full or by its first digits."""
    asked_ref = resolved_source.spec.ref
    # Git abbreviates to seven digits by default; hardly any branch is called like that.
    is_commit = (
        asked_ref is not None and len(asked_ref) >= 7 and str(resolved_source.commit).startswith(asked_ref.lower())
    )
    return None if is_commit else asked_ref


def make_node_pin(resolved_source: ResolvedSource, install_scripts: frozenset[str]) -> NodePin:
    """Return a node's pin: its commit or archive, its folder, its install script and whether that runs."""
    install_script, folder = resolved_source.install_script, resolved_source.spec.name
    from_registry = resolved_source.archive is not None
    node_name = resolved_source.spec.repo.removeprefix(REGISTRY_SCHEME) if from_registry else folder
    runs = install_script is not None and ("all" in install_scripts or folder in install_scripts)
    return NodePin(
        name=node_name,
        directory=folder if folder != node_name else None,
        repo=None if from_registry else resolved_source.spec.repo,
        ref=named_ref(resolved_source),
        commit=resolved_source.commit,
        archive=resolved_source.archive,
        sha256=resolved_source.sha256,
        install_script="run" if runs else "skip",
        install_script_sha256=None if install_script is None else Digest.of(install_script),
    )


def fetch_all_sources(
    lock: Lock, comfyui: RepoSpec, moved_refs: Mapping[str, str | None], upstreams: Upstreams, dropped: frozenset[str]
) -> dict[str, ResolvedSource]:
    """Fetch ComfyUI and all nodes, by origin; those that move at their new refs."""

    def fetch_node(node_pin: NodePin) -> ResolvedSource:
        origin = f"the node {node_pin.folder}"
        if node_pin.folder not in moved_refs:
            return refetch_source(node_pin, origin=origin, upstreams=upstreams, dropped=dropped)
        if node_pin.repo is None:
            repo_spec = RepoSpec(
                repo=f"{REGISTRY_SCHEME}{node_pin.name}", ref=moved_refs[node_pin.folder], folder=node_pin.folder
            )
        else:
            repo_spec = RepoSpec(
                repo=node_pin.repo, ref=moved_refs[node_pin.folder] or node_pin.ref, folder=node_pin.folder
            )
        return fetch_source(repo_spec, origin=origin, upstreams=upstreams, dropped=dropped)

    with ThreadPoolExecutor(WORKERS) as pool:
        first = pool.submit(fetch_source, comfyui, origin="ComfyUI", upstreams=upstreams, dropped=dropped)
        nodes = list(pool.map(fetch_node, lock.custom_nodes))
    return {"ComfyUI": first.result()} | {
        f"the node {node_pin.folder}": source for node_pin, source in zip(lock.custom_nodes, nodes, strict=True)
    }
