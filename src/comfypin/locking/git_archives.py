"""Pins a package from git as its host's archive of the commit, because an archive has a sha256.

An archive has neither submodules nor git's history, so a package that needs either stays a git package.
"""

import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from comfypin.http.proxies import Proxies
from comfypin.lock.model import PackagePin
from comfypin.lock.requirements import RequirementLine
from comfypin.locking.errors import GitPackageUnpinnable
from comfypin.temp_folders import temp_folder
from comfypin.tools.download import download_file
from comfypin.tools.errors import DownloadFailed

# The URL of a commit's archive, for hosts that give the same bytes each time.
ARCHIVE_HOSTS: Mapping[str, str] = {
    "github.com": "{scheme}://{host}/{path}/archive/{commit}.tar.gz",
    "codeberg.org": "{scheme}://{host}/{path}/archive/{commit}.tar.gz",
    "gitlab.com": "{scheme}://{host}/{path}/-/archive/{commit}/{name}-{commit}.tar.gz",
}


def commit_archive_url(package_pin: PackagePin, hosts: Mapping[str, str] = ARCHIVE_HOSTS) -> str | None:
    """Return the URL of a git package's archive; None if the host is unknown or the package is a subfolder (pure).

    >>> commit_archive_url(PackagePin(name="a", version="1", url="git+https://github.com/o/a.git@" + "c" * 40))[:40]
    'https://github.com/o/a/archive/ccccccccc'
    """
    # "#" begins a subdirectory, and an archive always holds the whole repository.
    if not package_pin.url or not package_pin.url.startswith(("git+https://", "git+http://")) or "#" in package_pin.url:
        return None
    address, _, commit = package_pin.url.removeprefix("git+").rpartition("@")
    url_parts = urlsplit(address)
    path = url_parts.path.strip("/").removesuffix(".git")
    # Only hosts that are known to give the same bytes each time.
    url_template = hosts.get(url_parts.netloc)
    if url_template is None or not path:
        return None
    repository_name = path.rpartition("/")[2]
    return url_template.format(
        scheme=url_parts.scheme, host=url_parts.netloc, path=path, name=repository_name, commit=commit
    )


def find_archives(
    pins: Iterable[PackagePin], hosts: Mapping[str, str] = ARCHIVE_HOSTS, *, proxies: Proxies | None = None
) -> Mapping[str, str]:
    """Map the git packages among these, by repository, to requirements of archives that hold the whole commit."""
    archive_lines = {}
    for package_pin in pins:
        archive_url = commit_archive_url(package_pin, hosts)
        # Fetched once now, so that a build does not fail later for a missing submodule.
        if archive_url is not None and _holds_whole_commit(archive_url, proxies):
            archive_lines[_plain_address(str(package_pin.url))] = f"{package_pin.name} @ {archive_url}"
    return archive_lines


def replace_requirements(needs: Iterable[RequirementLine], chosen: Mapping[str, str]) -> tuple[RequirementLine, ...]:
    """Return the requirements with those for a git repository replaced by what was chosen for it (pure)."""
    with_repository = ((requirement, repository_of(requirement.text) or "") for requirement in needs)
    return tuple(
        replace(requirement, text=chosen[repository]) if repository in chosen else requirement
        for requirement, repository in with_repository
    )


def require_archives(pins: Iterable[PackagePin], needs: Iterable[RequirementLine] = ()) -> None:
    """Refuse packages that still come from git: realizing could not verify them. Raises `GitPackageUnpinnable`."""
    git_packages = {
        _plain_address(str(package_pin.url)): package_pin.name
        for package_pin in pins
        if (package_pin.url or "").startswith("git+")
    }
    if git_packages:
        wants = [str(requirement) for requirement in needs if repository_of(requirement.text) in git_packages]
        raise GitPackageUnpinnable(packages=sorted(set(git_packages.values())), wants=wants)


def _holds_whole_commit(url: str, proxies: Proxies | None) -> bool:
    with temp_folder("archive") as folder:
        path = Path(folder, "archive.tar.gz")
        try:
            download_file(url, path, proxies=proxies)
            # Names alone are read: nothing of the archive is unpacked.
            with tarfile.open(path) as archive:
                return not any(member_name.partition("/")[2] == ".gitmodules" for member_name in archive.getnames())
        except (DownloadFailed, OSError, tarfile.TarError):
            return False


def hold_at_pins(
    needs: Iterable[RequirementLine], pins: Iterable[PackagePin], hosts: Mapping[str, str] = ARCHIVE_HOSTS
) -> Mapping[str, str]:
    """Return requirements that keep git packages at the commits of a lock, because branches move (pure).

    They are shaped as those of `find_archives`.
    """
    wanted_repositories = {repository for requirement in needs if (repository := repository_of(requirement.text))}
    archive_lines = {}
    for package_pin in pins:
        archive_url = package_pin.url or ""
        for repository in wanted_repositories:
            if _plain_address(archive_url) == repository or _is_archive(archive_url, repository, hosts):
                archive_lines[repository] = f"{package_pin.name} @ {archive_url}"
    return archive_lines


def repository_of(address_text: str) -> str | None:
    """Return the repository that a requirement names, without the ref."""
    _, scheme, address = address_text.partition("git+")
    return _plain_address(address) if scheme else None


def _plain_address(address: str) -> str:
    """Return a repository's address without the ref and what follows it."""
    whole = address.removeprefix("git+").partition(" ")[0].partition("#")[0]
    repository, _, ref = whole.rpartition("@")
    return repository if "://" in repository and not re.search(r"^[^/]*\.[^/]*[:/]", ref) else whole


def _is_archive(archive_url: str, place: str, hosts: Mapping[str, str]) -> bool:
    commit = re.search(r"[0-9a-f]{40}(?=\.tar\.gz$)", archive_url)
    return (
        commit is not None
        and commit_archive_url(PackagePin(name="", version="", url=f"git+{place}@{commit[0]}"), hosts) == archive_url
    )
