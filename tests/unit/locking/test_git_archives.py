"""Packages asked for from git: pinned as archives with a sha256, and held where a branch has moved."""

import functools
import http.server
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.lock.model import PackagePin
from comfypin.lock.requirements import RequirementLine, RequirementSet, parse_requirement
from comfypin.locking.create import pin_exactly
from comfypin.locking.errors import GitPackageUnpinnable, GitPackageUnreachable
from comfypin.locking.git_archives import commit_archive_url, hold_at_pins, replace_requirements
from comfypin.locking.resolve import ResolveRequest, resolve_packages
from tests.support.releases import make_wheel
from tests.support.repositories import commit, git

COMMIT = "c" * 40
PROJECT = """
[project]
name = "from-git"
version = "0.1"
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"
[tool.setuptools]
py-modules = ["from_git"]
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, *_: object) -> None:
        """Nobody listens."""


@dataclass(frozen=True)
class Host:
    """A host of git repositories that gives archives of their commits."""

    root: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/o/pk.git"

    @property
    def archives(self) -> dict[str, str]:
        return {f"127.0.0.1:{self.port}": "{scheme}://{host}/{path}/archive/{commit}.tar.gz"}

    def push(self, **files: str) -> str:
        """A commit, as git's plain HTTP gives it, and its archive."""
        source, bare = self.root / "source", self.root / "o/pk.git"
        made = commit(source, {name.replace("__", "."): text for name, text in files.items()})
        subprocess.run(
            ["git", "clone", "--quiet", "--bare", source, bare], check=not bare.exists(), capture_output=True
        )
        git(source, "push", "--quiet", str(bare), "main")
        git(bare, "update-server-info")
        archive = self.root / f"o/pk/archive/{made}.tar.gz"
        archive.parent.mkdir(parents=True, exist_ok=True)
        git(source, "archive", "--prefix", f"pk-{made}/", "--output", str(archive), made)
        return made


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Host(root=tmp_path, port=server.server_port)
        server.shutdown()
        thread.join()


def pins_of(host: Host, *, known: bool = True, overrides: tuple[str, ...] = ()) -> tuple[PackagePin, ...]:
    need = parse_requirement(f"git+{host.url}@main", "the node N")
    assert need is not None
    needs = RequirementSet(requirements=(need,))
    hosts = host.archives if known else {}
    question = ResolveRequest(
        needs=needs, python="3.11", platforms=("linux-x86_64",), overrides=overrides, git_hosts=hosts
    )
    return resolve_packages(question, report=lambda _: None).packages


def test_a_git_package_is_pinned_as_the_archive_of_its_commit(host: Host) -> None:
    made = host.push(pyproject__toml=PROJECT, from_git__py="V = 1\n")
    (pin,) = pins_of(host)
    archive = host.root / f"o/pk/archive/{made}.tar.gz"
    assert pin.url == f"http://127.0.0.1:{host.port}/o/pk/archive/{made}.tar.gz"
    assert (pin.name, pin.version, pin.sha256) == ("from-git", "0.1", (Digest.of_file(archive),))


def test_what_an_archive_would_lack_is_refused_with_who_wants_it(host: Host) -> None:
    host.push(pyproject__toml=PROJECT, from_git__py="", __gitmodules="")
    with pytest.raises(GitPackageUnpinnable, match=r"sha256: from-git .*the node N wants git\+http.*pk\.git@main"):
        pins_of(host)


def test_a_repository_on_an_unknown_host_is_refused(host: Host) -> None:
    host.push(pyproject__toml=PROJECT, from_git__py="")
    with pytest.raises(GitPackageUnpinnable, match="from-git"):
        pins_of(host, known=False)


def test_an_installed_git_package_is_pinned_as_its_archive_too(host: Host) -> None:
    made = host.push(pyproject__toml=PROJECT, from_git__py="V = 1\n")
    question = ResolveRequest(
        needs=RequirementSet(), python="3.11", platforms=("linux-x86_64",), git_hosts=host.archives
    )
    line = f"from-git @ git+{host.url}@{made}"
    (pin,) = pin_exactly([line], question, lambda _: None).packages
    assert pin.sha256 == (Digest.of_file(host.root / f"o/pk/archive/{made}.tar.gz"),)
    with pytest.raises(GitPackageUnpinnable, match="from-git"):
        pin_exactly([line], replace(question, git_hosts={}), lambda _: None)


def test_a_repository_that_cannot_be_had_is_said_with_who_wants_it(host: Host) -> None:
    with pytest.raises(GitPackageUnreachable, match=r"the node N wants git\+http.*pk\.git@main"):
        pins_of(host)


def test_a_repository_that_cannot_be_had_is_not_asked_for_if_a_release_overrides_it(host: Host) -> None:
    make_wheel(host.root, "pk", "1.2", {})
    overrides = (f"PK @ http://127.0.0.1:{host.port}/pk-1.2-py3-none-any.whl",)
    (pin,) = pins_of(host, overrides=overrides)
    assert (pin.name, pin.version) == ("pk", "1.2")


@pytest.mark.parametrize(
    ("url", "archive"),
    [
        (f"git+https://github.com/o/a.git@{COMMIT}", f"https://github.com/o/a/archive/{COMMIT}.tar.gz"),
        (f"git+https://gitlab.com/g/s/a@{COMMIT}", f"https://gitlab.com/g/s/a/-/archive/{COMMIT}/a-{COMMIT}.tar.gz"),
        (f"git+https://github.com/o/a@{COMMIT}#subdirectory=b", None),
        (f"git+ssh://git@github.com/o/a@{COMMIT}", None),
        (f"git+https://example.org/o/a@{COMMIT}", None),
        ("https://files.example.org/a-1-py3-none-any.whl", None),
        (None, None),
    ],
)
def test_hosts_name_archives_in_their_own_ways(url: str | None, archive: str | None) -> None:
    assert commit_archive_url(PackagePin(name="a", version="1", url=url)) == archive


@pytest.mark.parametrize(
    ("text", "url", "is_held"),
    [
        ("git+https://github.com/o/a@main", f"https://github.com/o/a/archive/{COMMIT}.tar.gz", True),
        ("a @ git+https://github.com/o/a.git", f"https://github.com/o/a/archive/{COMMIT}.tar.gz", True),
        ("git+https://x.org/o/a.git@v1#egg=a", f"git+https://x.org/o/a.git@{COMMIT}", True),
        ("git+https://x.org/o/b.git", f"git+https://x.org/o/a.git@{COMMIT}", False),
        ("a>=1", "https://x.org/a-1-py3-none-any.whl", False),
    ],
)
def test_a_branch_that_moved_moves_no_package(text: str, url: str, is_held: bool) -> None:
    need = RequirementLine(text=text, name="a", origin="the node N")
    chosen = hold_at_pins([need], [PackagePin(name="a", version="1", url=url)])
    assert [asked.text for asked in replace_requirements([need], chosen)] == [f"a @ {url}" if is_held else text]
