"""Gathers everything a lock needs beside its models in one folder that no upstream can take away."""

import platform
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from comfypin.digest import Digest
from comfypin.lock.check import check_lock, is_commit
from comfypin.lock.document import describe_value
from comfypin.lock.errors import LockFinding, LockIncomplete
from comfypin.lock.model import Lock, PackagePin
from comfypin.locking.errors import PackageUnbuildable
from comfypin.locking.pylock import file_name_of_url
from comfypin.locking.sources import Upstreams
from comfypin.plurals import format_count
from comfypin.tools.download import download_file
from comfypin.tools.git import CommitSource, list_submodules, write_bundle
from comfypin.tools.uv import run_uv
from comfypin.tools.vendor_folder import VendorFolder

# Downloads wait for their hosts, not for the processor.
WORKERS = 8
# Model findings are left out: models are not vendored.
_NEEDED = frozenset({"commit-not-pinned", "no-repository", "package-without-hash", "no-packages"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VendoredFiles:
    """What a vendor folder has now: the files by their paths in it, how many were fetched, and their size."""

    files: tuple[str, ...]
    fetched: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _VendorDownload:
    """One file of a vendor folder: where it goes, where it comes from, and the digests that it may have."""

    path: Path
    url: str
    digests: tuple[Digest, ...]

    def is_there(self) -> bool:
        return self.path.is_file() and Digest.of_file(self.path) in self.digests


def vendor_lock(
    lock: Lock, vendor_folder: VendorFolder, *, upstreams: Upstreams, report: Callable[[str], None]
) -> VendoredFiles:
    """Fill a vendor folder; what it already has, by digest, is left. Killed anywhere, the next call goes on.

    Raises `LockIncomplete` for a lock that is not pinned, `PackageUnbuildable`, and the errors of git and downloads.
    """
    require_sources(lock)
    wanted_downloads = [*_list_wheels(lock, vendor_folder), *_list_archives(lock, vendor_folder)]
    with ThreadPoolExecutor(WORKERS) as pool:
        # Hashed, not only looked for: a killed run may have left half a file.
        there = list(pool.map(_VendorDownload.is_there, wanted_downloads))
        absent_downloads = [item for item, is_there in zip(wanted_downloads, there, strict=True) if not is_there]
        report(f"{len(absent_downloads)} of {format_count(len(wanted_downloads), 'file')} to download")
        list(
            pool.map(
                lambda item: download_file(item.url, item.path, item.digests, proxies=upstreams.proxies),
                absent_downloads,
            )
        )
    built, fresh = _build_wheels(lock, vendor_folder, report)
    bundles, made = _write_bundles(lock, vendor_folder, upstreams.commits, report)
    files = sorted({*(item.path for item in wanted_downloads), *built, *bundles})
    return VendoredFiles(
        files=tuple(str(path.relative_to(vendor_folder.root)) for path in files),
        fetched=len(absent_downloads) + fresh + made,
        size_bytes=sum(path.stat().st_size for path in files),
    )


def require_sources(lock: Lock) -> None:
    """Refuse a lock whose commits and packages are not all pinned. Raises `LockIncomplete`."""
    findings: list[LockFinding] = [finding for finding in check_lock(lock) if finding.rule in _NEEDED]
    findings = [finding for finding in findings if finding.severity == "error"]
    for index, package_pin in enumerate(lock.python.packages):
        if package_pin.url is None or not (file_name_of_url(package_pin.url) or package_pin.url.startswith("git+")):
            path = f"$.python.packages[{index}].url"
            allowed = "a URL that ends in a file's name; without it nobody can say which file is meant"
            findings.append(
                LockFinding(
                    rule="package-without-url", path=path, found=describe_value(package_pin.url), allowed=allowed
                )
            )
    if findings:
        raise LockIncomplete(where=lock.version_name, findings=findings)


def _list_wheels(lock: Lock, folder: VendorFolder) -> Iterator[_VendorDownload]:
    # By URL, since one wheel may be pinned for several targets.
    for package_pin in {pin.url: pin for pin in lock.python.packages}.values():
        if package_pin.url and not package_pin.url.startswith("git+"):
            yield _VendorDownload(
                path=folder.wheels_folder / file_name_of_url(package_pin.url),
                url=package_pin.url,
                digests=package_pin.sha256,
            )


def _list_archives(lock: Lock, folder: VendorFolder) -> Iterator[_VendorDownload]:
    for node in lock.custom_nodes:
        if node.archive and node.sha256:
            yield _VendorDownload(path=folder.archive_path(node.sha256), url=node.archive, digests=(node.sha256,))


def _build_wheels(lock: Lock, vendor_folder: VendorFolder, report: Callable[[str], None]) -> tuple[list[Path], int]:
    """Build a wheel of every package that has only its source: building one asks the network for its tools.

    Raises `PackageUnbuildable`.
    """
    vendor_paths: list[Path] = []
    made_count = 0
    for package_pin in {pin.url: pin for pin in lock.python.packages}.values():
        if (
            not package_pin.url
            or package_pin.url.startswith("git+")
            or file_name_of_url(package_pin.url).endswith(".whl")
        ):
            continue
        known_wheels = [wheel for digest in package_pin.sha256 for wheel, _ in vendor_folder.find_built_wheels(digest)]
        if not known_wheels and not _is_for_this_machine(lock, package_pin):
            report(
                f"{package_pin.name} {package_pin.version} is for another kind of machine, "
                "which has to build it with a network"
            )
        elif not known_wheels:
            report(f"building {package_pin.name} {package_pin.version}")
            known_wheels = [_build_wheel(package_pin, vendor_folder, str(lock.python.version))]
            made_count += 1
        vendor_paths += known_wheels
    return vendor_paths, made_count


def _is_for_this_machine(lock: Lock, package_pin: PackagePin) -> bool:
    # macOS calls it arm64, our targets aarch64.
    here = f"{platform.system()}-{platform.machine()}".lower().replace("arm64", "aarch64")
    targets = [package_pin.target] if package_pin.target else list(lock.python.targets)
    return not targets or any(target.startswith(here) for target in targets)


def _build_wheel(package_pin: PackagePin, vendor_folder: VendorFolder, python: str) -> Path:
    source = vendor_folder.wheels_folder / file_name_of_url(str(package_pin.url))
    # In the vendor folder, so that the finished wheel is renamed and never copied.
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=vendor_folder.root) as build_folder:
        minor_version = ".".join(python.split(".")[:2])
        uv_run = run_uv(
            ["build", "--quiet", "--wheel", "--python", minor_version, "--out-dir", build_folder, source],
            cwd=Path(build_folder),
        )
        wheels = list(Path(build_folder).glob("*.whl"))
        if uv_run.exit_code or len(wheels) != 1:
            raise PackageUnbuildable(
                package=f"{package_pin.name} {package_pin.version}", python=minor_version, reason=uv_run.error_summary
            )
        # By the digests of source and wheel: builds are not reproducible, so several may exist.
        wheel_folder = vendor_folder.built_folder(Digest.of_file(source), Digest.of_file(wheels[0]))
        wheel_folder.mkdir(parents=True, exist_ok=True)
        return wheels[0].replace(wheel_folder / wheels[0].name)


def _write_bundles(
    lock: Lock, folder: VendorFolder, commits: CommitSource, report: Callable[[str], None]
) -> tuple[list[Path], int]:
    """Write a bundle for every commit, submodules too."""
    commits_to_bundle = [
        (package_pin.repo, package_pin.commit)
        for package_pin in (lock.comfyui, *lock.custom_nodes)
        if package_pin and package_pin.repo and package_pin.commit
    ]
    seen_commits: set[str] = set()
    vendor_paths: list[Path] = []
    made_count = 0
    while commits_to_bundle:
        repo_url, commit = commits_to_bundle.pop()
        if commit in seen_commits or not is_commit(commit):
            continue
        seen_commits.add(commit)
        vendor_path = folder.bundle_path(commit)
        git_folder = commits.obtain_repository(repo_url, commit)
        if not vendor_path.is_file():
            report(f"bundling {repo_url} at {commit[:12]}")
            write_bundle(git_folder, repo_url, commit, vendor_path)
            made_count += 1
        vendor_paths.append(vendor_path)
        # A submodule is a commit of another repository, and needs a bundle too.
        commits_to_bundle += list_submodules(git_folder, repo_url, commit)
    return vendor_paths, made_count
