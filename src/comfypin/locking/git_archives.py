"""Packages that are asked for from git, pinned as the archive that their host gives of the commit: it has a sha256.

An archive has neither submodules nor git's history, so a package that needs one of them stays a git package.
"""

import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from comfypin.http.proxies import Proxies
from comfypin.lock.model import PackagePin
from comfypin.lock.requirements import Need
from comfypin.locking.errors import GitPackageUnpinnable
from comfypin.temp_folders import temp_folder
from comfypin.tools.download import download_file
from comfypin.tools.errors import DownloadFailed

# What a host calls the archive of a commit, for those that give the same bytes each time.
HOSTS: Mapping[str, str] = {
    "github.com": "{scheme}://{host}/{path}/archive/{commit}.tar.gz",
    "codeberg.org": "{scheme}://{host}/{path}/archive/{commit}.tar.gz",
    "gitlab.com": "{scheme}://{host}/{path}/-/archive/{commit}/{name}-{commit}.tar.gz",
}


def archive_of(pin: PackagePin, hosts: Mapping[str, str] = HOSTS) -> str | None:
    """The address of the archive of a git package; None where the host is not known, or only a folder is meant (pure).

    >>> archive_of(PackagePin(name="a", version="1", url="git+https://github.com/o/a.git@" + "c" * 40))[:40]
    'https://github.com/o/a/archive/ccccccccc'
    """
    if not pin.url or not pin.url.startswith(("git+https://", "git+http://")) or "#" in pin.url:
        return None
    address, _, commit = pin.url.removeprefix("git+").rpartition("@")
    parts = urlsplit(address)
    path = parts.path.strip("/").removesuffix(".git")
    form = hosts.get(parts.netloc)
    if form is None or not path:
        return None
    name = path.rpartition("/")[2]
    return form.format(scheme=parts.scheme, host=parts.netloc, path=path, name=name, commit=commit)


def archives(
    pins: Iterable[PackagePin], hosts: Mapping[str, str] = HOSTS, *, proxies: Proxies | None = None
) -> Mapping[str, str]:
    """The git packages among these by repository, as requirements of archives that have all of the commit."""
    found = {}
    for pin in pins:
        url = archive_of(pin, hosts)
        if url is not None and _is_whole(url, proxies):
            found[_plain(str(pin.url))] = f"{pin.name} @ {url}"
    return found


def instead(needs: Iterable[Need], chosen: Mapping[str, str]) -> tuple[Need, ...]:
    """The needs, with those for a git repository replaced by what was chosen for it (pure)."""
    places = ((need, repository_of(need.text) or "") for need in needs)
    return tuple(replace(need, text=chosen[place]) if place in chosen else need for need, place in places)


def require_archives(pins: Iterable[PackagePin], needs: Iterable[Need] = ()) -> None:
    """Refuse packages that are still git's: realizing could not verify them. Raises `GitPackageUnpinnable`."""
    loose = {_plain(str(pin.url)): pin.name for pin in pins if (pin.url or "").startswith("git+")}
    if loose:
        wants = [str(need) for need in needs if repository_of(need.text) in loose]
        raise GitPackageUnpinnable(packages=sorted(set(loose.values())), wants=wants)


def _is_whole(url: str, proxies: Proxies | None) -> bool:
    with temp_folder("archive") as folder:
        path = Path(folder, "archive.tar.gz")
        try:
            download_file(url, path, proxies=proxies)
            with tarfile.open(path) as archive:
                return not any(name.partition("/")[2] == ".gitmodules" for name in archive.getnames())
        except (DownloadFailed, OSError, tarfile.TarError):
            return False


def held(needs: Iterable[Need], pins: Iterable[PackagePin], hosts: Mapping[str, str] = HOSTS) -> Mapping[str, str]:
    """What keeps git packages at the commits that a lock has, as `archives` has it, for branches move (pure)."""
    wanted = {place for need in needs if (place := repository_of(need.text))}
    found = {}
    for pin in pins:
        url = pin.url or ""
        for place in wanted:
            if _plain(url) == place or _is_archive(url, place, hosts):
                found[place] = f"{pin.name} @ {url}"
    return found


def repository_of(text: str) -> str | None:
    """The repository that a requirement names, without the ref."""
    _, found, address = text.partition("git+")
    return _plain(address) if found else None


def _plain(address: str) -> str:
    """A repository's address without the ref, and what follows it."""
    whole = address.removeprefix("git+").partition(" ")[0].partition("#")[0]
    place, _, ref = whole.rpartition("@")
    return place if "://" in place and not re.search(r"^[^/]*\.[^/]*[:/]", ref) else whole


def _is_archive(url: str, place: str, hosts: Mapping[str, str]) -> bool:
    commit = re.search(r"[0-9a-f]{40}(?=\.tar\.gz$)", url)
    return (
        commit is not None and archive_of(PackagePin(name="", version="", url=f"git+{place}@{commit[0]}"), hosts) == url
    )
