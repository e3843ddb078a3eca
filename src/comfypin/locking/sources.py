"""ComfyUI and nodes as a lock sees them: a commit or an archive, what it requires, its install script."""

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
from comfypin.lock.requirements import Needs, decoded, read_needs
from comfypin.locking.errors import ArchiveUnreadable
from comfypin.locking.node_registry import SCHEME, Registry
from comfypin.locking.repository_refs import RepoSpec
from comfypin.tools.download import download_file
from comfypin.tools.git import CommitSource, list_tree, read_blobs, require_whole_files
from comfypin.tools.git_remote import resolve_ref

MAX_TEXT_BYTES = 4 << 20
WORKERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where parts come from: git commits, the node registry, the folder that keeps its archives by digest."""

    commits: CommitSource
    registry: Registry
    archives: Path
    proxies: Proxies = field(default_factory=Proxies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A repository at its commit, or an archive, as much of it as a lock needs to know."""

    spec: RepoSpec
    needs: Needs
    commit: str | None = None
    archive: str | None = None
    sha256: Digest | None = None
    install_script: bytes | None = None
    has_main: bool = False


def read_part(spec: RepoSpec, *, origin: str, places: Places, dropped: frozenset[str] = frozenset()) -> Part:
    """Fetch a part at its ref (a registry's pack at its version), and read what it requires.

    Raises the errors of git, of downloads and of the registry.
    """
    if spec.repo.startswith(SCHEME):
        found = places.registry.version(spec.repo.removeprefix(SCHEME), spec.ref)
        spec = RepoSpec(repo=spec.repo, ref=found.version, folder=spec.name)
        return _read_archive(spec, found.archive, None, places=places, origin=origin, dropped=dropped)
    commit = resolve_ref(spec.repo, spec.ref)
    kept = places.commits.obtain_repository(spec.repo, commit)
    require_whole_files(kept, spec.repo, commit)
    entries = {entry.path: entry for entry in list_tree(kept, commit) if entry.mode.startswith("100")}

    def read(path: str) -> bytes | None:
        if path not in entries:
            return None
        return next(data for _, data in read_blobs(kept, [entries[path]], spec.repo, commit))

    needs, script = _needs_of(read, origin, dropped), read("install.py")
    return Part(spec=spec, commit=commit, needs=needs, install_script=script, has_main="main.py" in entries)


def reread_part(node: NodePin, *, origin: str, places: Places, dropped: frozenset[str] = frozenset()) -> Part:
    """The part that a pin already names: the same commit, the same archive."""
    if node.archive is None:
        spec = RepoSpec(repo=str(node.repo), ref=node.commit or node.ref, folder=node.folder)
        return read_part(spec, origin=origin, places=places, dropped=dropped)
    spec = RepoSpec(repo=f"{SCHEME}{node.name}", ref=node.ref, folder=node.folder)
    return _read_archive(spec, node.archive, node.sha256, places=places, origin=origin, dropped=dropped)


def _read_archive(
    spec: RepoSpec,
    url: str,
    known: Digest | None,
    *,
    places: Places,
    origin: str,
    dropped: frozenset[str] = frozenset(),
) -> Part:
    kept = places.archives / f"{known.hex}.zip" if known else None
    if kept is None or not kept.is_file():
        arriving = places.archives / f".tmp-{process_token()}.zip"
        digest = download_file(url, arriving, (known,) if known else (), proxies=places.proxies)
        kept = arriving.replace(places.archives / f"{digest.hex}.zip")
    digest = Digest.of_file(kept)
    try:
        with zipfile.ZipFile(io.BytesIO(kept.read_bytes())) as archive:
            sizes = {item.filename: item.file_size for item in archive.infolist()}

            def read(path: str) -> bytes | None:
                return archive.read(path) if sizes.get(path, MAX_TEXT_BYTES) < MAX_TEXT_BYTES else None

            needs, script = _needs_of(read, origin, dropped), read("install.py")
    except (zipfile.BadZipFile, RuntimeError, OSError, NotImplementedError) as error:
        raise ArchiveUnreadable(url=url, reason=str(error)) from error
    return Part(spec=spec, archive=url, sha256=digest, needs=needs, install_script=script)


def _needs_of(read: Callable[[str], bytes | None], origin: str, dropped: frozenset[str]) -> Needs:
    """The requirements.txt of a part, else the dependencies of its pyproject.toml."""

    def text(path: str) -> str | None:
        data = read(str(PurePosixPath(path)))
        return None if data is None else decoded(data)

    if text("requirements.txt") is not None:
        return read_needs("requirements.txt", origin=origin, read=text, dropped=dropped)
    try:
        project = tomllib.loads(text("pyproject.toml") or "").get("project", {})
        lines = project.get("dependencies", []) if isinstance(project, dict) else []
    except tomllib.TOMLDecodeError as error:
        return Needs(unusable=(f"{origin}: pyproject.toml is not TOML ({error})",))
    listed = "\n".join(str(line) for line in lines) if isinstance(lines, list) else ""
    return read_needs("pyproject.toml", origin=origin, read=lambda _: listed, dropped=dropped)


def ref_of(part: Part) -> str | None:
    """The name that was asked for, where it is one: a commit, in full or by its first digits, is its own name."""
    ref = part.spec.ref
    is_commit = ref is not None and len(ref) >= 7 and str(part.commit).startswith(ref.lower())
    return None if is_commit else ref


def node_pin(part: Part, install_scripts: frozenset[str]) -> NodePin:
    """The pin of a node: its commit or archive, its folder, its install script and what is to be done about it."""
    script, folder = part.install_script, part.spec.name
    from_registry = part.archive is not None
    name = part.spec.repo.removeprefix(SCHEME) if from_registry else folder
    runs = script is not None and ("all" in install_scripts or folder in install_scripts)
    return NodePin(
        name=name,
        directory=folder if folder != name else None,
        repo=None if from_registry else part.spec.repo,
        ref=ref_of(part),
        commit=part.commit,
        archive=part.archive,
        sha256=part.sha256,
        install_script="run" if runs else "skip",
        install_script_sha256=None if script is None else Digest.of(script),
    )


def read_parts(
    lock: Lock, comfyui: RepoSpec, moved: Mapping[str, str | None], places: Places, dropped: frozenset[str]
) -> dict[str, Part]:
    """ComfyUI and all nodes by origin; those that move at their new refs."""

    def read(node: NodePin) -> Part:
        origin = f"the node {node.folder}"
        if node.folder not in moved:
            return reread_part(node, origin=origin, places=places, dropped=dropped)
        if node.repo is None:
            spec = RepoSpec(repo=f"{SCHEME}{node.name}", ref=moved[node.folder], folder=node.folder)
        else:
            spec = RepoSpec(repo=node.repo, ref=moved[node.folder] or node.ref, folder=node.folder)
        return read_part(spec, origin=origin, places=places, dropped=dropped)

    with ThreadPoolExecutor(WORKERS) as pool:
        first = pool.submit(read_part, comfyui, origin="ComfyUI", places=places, dropped=dropped)
        nodes = list(pool.map(read, lock.custom_nodes))
    return {"ComfyUI": first.result()} | {
        f"the node {node.folder}": part for node, part in zip(lock.custom_nodes, nodes, strict=True)
    }
