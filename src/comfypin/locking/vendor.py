"""Everything a lock needs beside its models, gathered in one folder that no upstream can take away."""

import platform
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from comfypin.digest import Digest
from comfypin.lock.check import check, is_commit
from comfypin.lock.document import describe
from comfypin.lock.errors import Finding, LockIncomplete
from comfypin.lock.model import Lock, PackagePin
from comfypin.locking.errors import PackageUnbuildable
from comfypin.locking.pylock import file_name
from comfypin.locking.sources import Places
from comfypin.tools.download import download_file
from comfypin.tools.git import CommitSource, list_submodules, write_bundle
from comfypin.tools.uv import run_uv
from comfypin.tools.vendor_folder import VendorFolder

WORKERS = 8
_NEEDED = frozenset({"commit-not-pinned", "no-repository", "package-without-hash", "no-packages"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What a vendor folder has now: the files by their paths in it, how many were fetched, and their size."""

    files: tuple[str, ...]
    fetched: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Download:
    """One file of a vendor folder: where it goes, where it comes from, and the digests that it may have."""

    path: Path
    url: str
    digests: tuple[Digest, ...]

    def is_there(self) -> bool:
        return self.path.is_file() and Digest.of_file(self.path) in self.digests


def vendor(lock: Lock, folder: VendorFolder, *, places: Places, tell: Callable[[str], None]) -> Gathered:
    """Fill a vendor folder; what it has already, by digest, is left. Killed anywhere, the next call goes on.

    Raises `LockIncomplete` for a lock that is not pinned, `PackageUnbuildable`, and the errors of git and downloads.
    """
    require_sources(lock)
    wanted = [*_wheels(lock, folder), *_archives(lock, folder)]
    with ThreadPoolExecutor(WORKERS) as pool:
        there = list(pool.map(_Download.is_there, wanted))
        absent = [item for item, is_there in zip(wanted, there, strict=True) if not is_there]
        tell(f"{len(wanted)} packages and archives, {len(absent)} of them to download")
        list(pool.map(lambda item: download_file(item.url, item.path, item.digests, proxies=places.proxies), absent))
    built, fresh = _built(lock, folder, tell)
    bundles, made = _bundles(lock, folder, places.commits, tell)
    files = sorted({*(item.path for item in wanted), *built, *bundles})
    return Gathered(
        files=tuple(str(path.relative_to(folder.root)) for path in files),
        fetched=len(absent) + fresh + made,
        size_bytes=sum(path.stat().st_size for path in files),
    )


def require_sources(lock: Lock) -> None:
    """Refuse a lock whose commits and packages are not all pinned. Raises `LockIncomplete`."""
    findings: list[Finding] = [finding for finding in check(lock) if finding.rule in _NEEDED]
    findings = [finding for finding in findings if finding.severity == "error"]
    for index, pin in enumerate(lock.python.packages):
        if pin.url is None or not (file_name(pin.url) or pin.url.startswith("git+")):
            path = f"$.python.packages[{index}].url"
            allowed = "a URL that ends in a file's name; without it nobody can say which file is meant"
            findings.append(Finding(rule="package-without-url", path=path, found=describe(pin.url), allowed=allowed))
    if findings:
        raise LockIncomplete(where=lock.version_name, findings=findings)


def _wheels(lock: Lock, folder: VendorFolder) -> Iterator[_Download]:
    for pin in {pin.url: pin for pin in lock.python.packages}.values():
        if pin.url and not pin.url.startswith("git+"):
            yield _Download(path=folder.wheels_folder / file_name(pin.url), url=pin.url, digests=pin.sha256)


def _archives(lock: Lock, folder: VendorFolder) -> Iterator[_Download]:
    for node in lock.custom_nodes:
        if node.archive and node.sha256:
            yield _Download(path=folder.archive_path(node.sha256), url=node.archive, digests=(node.sha256,))


def _built(lock: Lock, folder: VendorFolder, tell: Callable[[str], None]) -> tuple[list[Path], int]:
    """A wheel of every package that has only its source: building one asks the network for its tools.

    Raises `PackageUnbuildable`.
    """
    paths: list[Path] = []
    made = 0
    for pin in {pin.url: pin for pin in lock.python.packages}.values():
        if not pin.url or pin.url.startswith("git+") or file_name(pin.url).endswith(".whl"):
            continue
        known = [wheel for digest in pin.sha256 for wheel, _ in folder.find_built_wheels(digest)]
        if not known and not _is_for_this_machine(lock, pin):
            tell(f"{pin.name} {pin.version} is for another kind of machine, which has to build it with a network")
        elif not known:
            tell(f"building {pin.name} {pin.version}")
            known = [_build(pin, folder, str(lock.python.version))]
            made += 1
        paths += known
    return paths, made


def _is_for_this_machine(lock: Lock, pin: PackagePin) -> bool:
    here = f"{platform.system()}-{platform.machine()}".lower().replace("arm64", "aarch64")
    targets = [pin.target] if pin.target else list(lock.python.targets)
    return not targets or any(target.startswith(here) for target in targets)


def _build(pin: PackagePin, folder: VendorFolder, python: str) -> Path:
    source = folder.wheels_folder / file_name(str(pin.url))
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder.root) as scratch:
        minor = ".".join(python.split(".")[:2])
        done = run_uv(
            ["build", "--quiet", "--wheel", "--python", minor, "--out-dir", scratch, source], cwd=Path(scratch)
        )
        wheels = list(Path(scratch).glob("*.whl"))
        if done.exit_code or len(wheels) != 1:
            raise PackageUnbuildable(package=f"{pin.name} {pin.version}", python=minor, reason=done.error_summary)
        place = folder.built_folder(Digest.of_file(source), Digest.of_file(wheels[0]))
        place.mkdir(parents=True, exist_ok=True)
        return wheels[0].replace(place / wheels[0].name)


def _bundles(
    lock: Lock, folder: VendorFolder, commits: CommitSource, tell: Callable[[str], None]
) -> tuple[list[Path], int]:
    """A bundle for every commit, submodules too."""
    waiting = [(pin.repo, pin.commit) for pin in (lock.comfyui, *lock.custom_nodes) if pin and pin.repo and pin.commit]
    seen: set[str] = set()
    paths: list[Path] = []
    made = 0
    while waiting:
        repo, commit = waiting.pop()
        if commit in seen or not is_commit(commit):
            continue
        seen.add(commit)
        path = folder.bundle_path(commit)
        kept = commits.obtain_repository(repo, commit)
        if not path.is_file():
            tell(f"bundling {repo} at {commit[:12]}")
            write_bundle(kept, repo, commit, path)
            made += 1
        paths.append(path)
        waiting += list_submodules(kept, repo, commit)
    return paths, made
