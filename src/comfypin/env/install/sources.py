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


def write_sources(build_folder: Path, recipe: EnvRecipe, locations: SourceLocations) -> None:
    """Write ComfyUI and every node into a build. Raises what git's tools raise, and `ArchiveUnusable`."""
    _write_repo(build_folder / COMFYUI_FOLDER, recipe.comfyui, locations)
    for node_pin in recipe.nodes:
        node_folder_path = build_folder / node_folder(node_pin)
        # ComfyUI's own tree may hold a folder of this name; a node is exactly its pin.
        if node_folder_path.is_symlink() or node_folder_path.exists():
            shutil.rmtree(node_folder_path)
        if node_pin.archive:
            _write_archive(node_folder_path, node_pin, locations)
        else:
            _write_repo(node_folder_path, node_pin, locations)


def restore_sources(
    build_folder: Path, recipe: EnvRecipe, locations: SourceLocations, changed_paths: Sequence[str]
) -> None:
    """Write files again that importing a node has changed; only what came from git without a patch can be."""
    pins_by_folder: dict[str, RepoPin | NodePin] = {
        COMFYUI_FOLDER: recipe.comfyui,
        **{node_folder(node_pin): node_pin for node_pin in recipe.nodes},
    }
    paths_by_folder: dict[str, list[str]] = {}
    for relative_path in changed_paths:
        folder_name = max(
            (folder_name for folder_name in pins_by_folder if relative_path.startswith(f"{folder_name}/")),
            key=len,
            default=None,
        )
        if folder_name is not None:
            paths_by_folder.setdefault(folder_name, []).append(relative_path.removeprefix(f"{folder_name}/"))
    for folder_name, relative_paths in paths_by_folder.items():
        source_pin = pins_by_folder[folder_name]
        if source_pin.repo and source_pin.commit and not source_pin.patch:
            rewrite_files(
                locations.commit_source, source_pin.repo, source_pin.commit, build_folder / folder_name, relative_paths
            )


def _write_repo(target_folder: Path, source_pin: RepoPin | NodePin, locations: SourceLocations) -> None:
    assert source_pin.repo is not None, "require_pinned comes first"
    assert source_pin.commit is not None
    write_commit(locations.commit_source, source_pin.repo, source_pin.commit, target_folder)
    if source_pin.patch:
        apply_patch(target_folder, source_pin.patch, what=source_pin.repo)


def _write_archive(target_folder: Path, node_pin: NodePin, locations: SourceLocations) -> None:
    archive_bytes = _archive_bytes(node_pin, locations)
    target_folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(io.BytesIO(archive_bytes)) as zip_archive:
            for zip_member in zip_archive.infolist():
                _extract_member(zip_archive, zip_member, target_folder)
    except (zipfile.BadZipFile, ValueError, OSError, RuntimeError) as error:
        raise ArchiveUnusable(node=node_pin.name, url=str(node_pin.archive), reason=str(error)) from error


def _extract_member(zip_archive: zipfile.ZipFile, zip_member: zipfile.ZipInfo, target_folder: Path) -> None:
    file_mode = zip_member.external_attr >> 16
    if zip_member.is_dir():
        return
    if stat.S_ISLNK(file_mode):
        raise ValueError(f"{zip_member.filename} in it is a link")
    target_path = contained_path(target_folder, PurePosixPath(zip_member.filename))
    target_path.parent.mkdir(parents=True, exist_ok=True)
    # "xb" refuses an archive that has a name twice.
    with zip_archive.open(zip_member) as zipped_file, target_path.open("xb") as target_file:
        shutil.copyfileobj(zipped_file, target_file, 1 << 20)
    # Only the executable bit of the archive counts, so that the umask of its author does not.
    target_path.chmod(0o755 if file_mode & 0o100 else 0o644)


def _archive_bytes(node_pin: NodePin, locations: SourceLocations) -> bytes:
    assert node_pin.sha256 is not None, "require_pinned comes first"
    cached_archive = locations.archives / f"{node_pin.sha256.hex}.zip"
    vendored_archive = locations.vendor.archive_path(node_pin.sha256) if locations.vendor else cached_archive
    for archive_path in (cached_archive, vendored_archive):
        if archive_path.is_file() and Digest.of(archive_bytes := archive_path.read_bytes()) == node_pin.sha256:
            return archive_bytes
    if locations.offline:
        raise ArchiveUnusable(
            node=node_pin.name,
            url=str(node_pin.archive),
            reason="it is not on this machine, and --offline forbids downloading it",
        )
    download_file(str(node_pin.archive), cached_archive, (node_pin.sha256,), proxies=locations.proxies)
    return cached_archive.read_bytes()
