"""ComfyUI and the nodes as files: by commit from git, or from an archive of the node registry."""

import io
import shutil
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from comfypin.atomic_files import contained_path
from comfypin.digest import Digest
from comfypin.env.errors import ArchiveUnusable
from comfypin.env.layout import COMFYUI_FOLDER
from comfypin.env.realize_plan import EnvRecipe, node_folder
from comfypin.http.proxies import Proxies
from comfypin.lock.model import NodePin, RepoPin
from comfypin.tools.download import download_file
from comfypin.tools.git import CommitSource, apply_patch, rewrite_files, write_commit
from comfypin.tools.vendor_folder import VendorFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLocations:
    """Says what sources may come from: the cache, a vendor folder, and (unless offline) the network."""

    cache: Path
    vendor: VendorFolder | None = None
    offline: bool = False
    named_uv_cache: Path | None = None
    proxies: Proxies = field(default_factory=Proxies)

    @property
    def uv_cache(self) -> Path:
        """Return uv's cache: the user's own if it is named, else one of ours, whose files no other venv shares."""
        return self.named_uv_cache or (self.cache / "uv").absolute()

    @property
    def package_cache(self) -> Path:
        """Return the cache of installed packages."""
        return self.cache / "packages"

    @property
    def archives(self) -> Path:
        """Return the folder of node archives from the registry, named by digest."""
        return self.cache / "archives"

    @property
    def probe_notes(self) -> Path:
        """Return the folder of notes about envs that have started here."""
        return self.cache / "probes"

    @property
    def commit_source(self) -> CommitSource:
        """Return the source of git commits."""
        bundles = self.vendor.bundles_folder if self.vendor else None
        return CommitSource(cache=(self.cache / "git").absolute(), bundles=bundles, offline=self.offline)


def write_sources(build: Path, recipe: EnvRecipe, places: SourceLocations) -> None:
    """Write ComfyUI and every node into a build. Raises what git's tools raise, and `ArchiveUnusable`."""
    _write_repo(build / COMFYUI_FOLDER, recipe.comfyui, places)
    for node in recipe.nodes:
        folder = build / node_folder(node)
        # ComfyUI's own tree may hold a folder of this name; a node is exactly its pin.
        if folder.is_symlink() or folder.exists():
            shutil.rmtree(folder)
        if node.archive:
            _write_archive(folder, node, places)
        else:
            _write_repo(folder, node, places)


def restore_sources(build: Path, recipe: EnvRecipe, places: SourceLocations, changed: Sequence[str]) -> None:
    """Write files again that importing a node has changed; only what came from git without a patch can be."""
    pins: dict[str, RepoPin | NodePin] = {COMFYUI_FOLDER: recipe.comfyui, **{node_folder(n): n for n in recipe.nodes}}
    by_folder: dict[str, list[str]] = {}
    for path in changed:
        folder = max((name for name in pins if path.startswith(f"{name}/")), key=len, default=None)
        if folder is not None:
            by_folder.setdefault(folder, []).append(path.removeprefix(f"{folder}/"))
    for folder, paths in by_folder.items():
        pin = pins[folder]
        if pin.repo and pin.commit and not pin.patch:
            rewrite_files(places.commit_source, pin.repo, pin.commit, build / folder, paths)


def _write_repo(folder: Path, pin: RepoPin | NodePin, places: SourceLocations) -> None:
    assert pin.repo is not None, "require_pinned comes first"
    assert pin.commit is not None
    write_commit(places.commit_source, pin.repo, pin.commit, folder)
    if pin.patch:
        apply_patch(folder, pin.patch, what=pin.repo)


def _write_archive(folder: Path, node: NodePin, places: SourceLocations) -> None:
    data = _archive_bytes(node, places)
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                _extract_member(archive, member, folder)
    except (zipfile.BadZipFile, ValueError, OSError, RuntimeError) as error:
        raise ArchiveUnusable(node=node.name, url=str(node.archive), reason=str(error)) from error


def _extract_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    mode = member.external_attr >> 16
    if member.is_dir():
        return
    if stat.S_ISLNK(mode):
        raise ValueError(f"{member.filename} in it is a link")
    path = contained_path(folder, PurePosixPath(member.filename))
    path.parent.mkdir(parents=True, exist_ok=True)
    # "xb" refuses an archive that has a name twice.
    with archive.open(member) as source, path.open("xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    # Only the executable bit of the archive counts, so that the umask of its author does not.
    path.chmod(0o755 if mode & 0o100 else 0o644)


def _archive_bytes(node: NodePin, places: SourceLocations) -> bytes:
    assert node.sha256 is not None, "require_pinned comes first"
    kept = places.archives / f"{node.sha256.hex}.zip"
    vendored = places.vendor.archive_path(node.sha256) if places.vendor else kept
    for path in (kept, vendored):
        if path.is_file() and Digest.of(data := path.read_bytes()) == node.sha256:
            return data
    if places.offline:
        raise ArchiveUnusable(
            node=node.name,
            url=str(node.archive),
            reason="it is not on this machine, and --offline forbids to download it",
        )
    download_file(str(node.archive), kept, (node.sha256,), proxies=places.proxies)
    return kept.read_bytes()
