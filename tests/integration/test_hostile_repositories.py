"""Repositories and locks of strangers: whatever they hold, nothing of it is executed and nothing leaves its folder.

Whatever a test's repository could execute would make the file `ran`; no test may find it.
"""

import os
import stat
import subprocess
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.env.errors import ArchiveUnusable
from comfypin.env.file_manifest import hash_files
from comfypin.env.install.sources import SourceLocations
from comfypin.env.layout import Home
from comfypin.env.pack.store import FolderPackStore
from comfypin.env.realize import RealizeOptions, realize_env
from comfypin.env.status import check_env
from comfypin.errors import ComfypinError
from comfypin.lock.codec import parse_lock, render_lock
from comfypin.lock.errors import LockInvalid, SpecInvalid
from comfypin.lock.model import NodePin
from comfypin.locking.node_registry import NodeRegistry
from comfypin.locking.repository_refs import RepoSpec, parse_repo_spec
from comfypin.locking.sources import Upstreams, fetch_source
from comfypin.tools.errors import PatchUnfit, RefMissing, RepoUnreachable, TreeRefused
from comfypin.tools.git import CommitSource, apply_patch, list_submodules, write_commit
from comfypin.tools.git_remote import diff_checkout, list_tracked_files, read_checkout, resolve_ref
from tests.support.releases import Repo, SmallRelease, small_release


@pytest.fixture
def ran(tmp_path: Path) -> Iterator[Path]:
    """The file that anything executed would make."""
    marker = tmp_path / "ran"
    yield marker
    assert not marker.exists(), "something of the repository was executed"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "node")
    made.commit({"__init__.py": "NODE_CLASS_MAPPINGS = {}\n", "lib/a.py": "A = 1\n"})
    return made


@pytest.fixture
def commits(tmp_path: Path) -> CommitSource:
    return CommitSource(cache=tmp_path / "cache")


def script(ran: Path) -> Path:
    """A program that tells that it ran, and passes its input on."""
    path = ran.with_name("program")
    path.write_text(f"#!/bin/sh\necho \"$0 $*\" >> '{ran}'\ncat\n")
    path.chmod(0o755)
    return path


def places(tmp_path: Path) -> Upstreams:
    registry = NodeRegistry(url="http://127.0.0.1:9")
    return Upstreams(commits=CommitSource(cache=tmp_path / "cache"), registry=registry, archives=tmp_path / "archives")


# -- Addresses and refs that are options or programs -------------------------------------------------------------------

ADDRESSES = (
    "ext::sh -c touch% {ran}", "ext::touch {ran}", "--upload-pack=touch {ran}", "-u touch {ran}", "--exec=touch {ran}",
    "ssh://-oProxyCommand=touch%20{ran}/x", "ssh://-oProxyCommand=touch {ran}/x", "-oProxyCommand=touch {ran}:x",
    "fd::17", "transport::x", "a::b", "file://-x", "git://-x/y", "|touch {ran}", "$(touch {ran})", "`touch {ran}`",
    "git@-oProxyCommand=touch {ran}:x", "x;touch {ran}", "http::ext::touch {ran}", "https://\nexample.org", "",
)  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_a_program_or_an_option_is_refused(
    address: str, ran: Path, tmp_path: Path, commits: CommitSource
) -> None:
    address = address.format(ran=ran)
    with pytest.raises(SpecInvalid):
        parse_repo_spec(f"{address}@main")
    # In a lock, as a submodule, and beneath both: git itself is asked nothing that it would execute.
    with pytest.raises(ComfypinError):
        fetch_source(RepoSpec(repo=address or "-", ref=None), origin="a node", upstreams=places(tmp_path))
    with pytest.raises(ComfypinError):
        commits.obtain_repository(address or "-", "1" * 40)


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_lock_names_no_such_address(address: str, ran: Path, tmp_path: Path) -> None:
    lock = small_release(tmp_path / "release").lock
    first, *others = lock.custom_nodes
    hostile = replace(lock, custom_nodes=(replace(first, repo=address.format(ran=ran)), *others))
    with pytest.raises(LockInvalid):
        parse_lock(render_lock(hostile), where="a lock")


@pytest.mark.parametrize(
    "ref",
    ["-x", "--upload-pack=touch {ran}", "--output={ran}", "-", "--", "@{{upstream}}", "HEAD:../x", "a..b", "^main"],
)
def test_a_ref_that_is_an_option_is_only_looked_up(ref: str, ran: Path, repo: Repo) -> None:
    with pytest.raises(RefMissing):
        resolve_ref(repo.url, ref.format(ran=ran))


def test_a_branch_that_is_named_like_an_option_is_a_branch(repo: Repo, ran: Path, commits: CommitSource) -> None:
    head = repo.commit({"b.py": ""})
    (repo.folder / ".git/refs/heads/--upload-pack=x").write_text(f"{head}\n")
    assert resolve_ref(repo.url, "--upload-pack=x") == head
    write_commit(commits, repo.url, head, ran.with_name("tree"))


# -- What a repository brings along ------------------------------------------------------------------------------------


def test_hooks_filters_and_settings_of_a_repository_are_not_obeyed(
    repo: Repo, ran: Path, commits: CommitSource
) -> None:
    program = script(ran)
    attributes = "*.py filter=evil diff=evil merge=evil ident export-subst\n"
    head = repo.commit(
        {".gitattributes": attributes, "lib/b.py": "$Id$ $Format:%H$\n", ".lfsconfig": f"[lfs]\nurl={program}\n"}
    )
    _poison(repo.folder / ".git", program)
    write_commit(commits, repo.url, head, ran.with_name("tree"))
    assert (ran.with_name("tree") / "lib/b.py").read_text() == "$Id$ $Format:%H$\n"


def test_a_checkout_whose_settings_name_programs_is_captured_without_them(repo: Repo, ran: Path) -> None:
    repo.commit({".gitattributes": "*.py filter=evil diff=evil\n*.txt filter=other\n", "c.txt": "1\n"})
    _poison(repo.folder / ".git", script(ran))
    (repo.folder / "lib/a.py").write_text("A = 2\n")
    (repo.folder / "c.txt").write_text("2\n")
    (repo.folder / "new.py").write_text("NEW = 1\n")
    checkout = read_checkout(repo.folder)
    assert checkout is not None
    assert set(checkout.changed) == {"lib/a.py", "c.txt", "new.py"}
    assert "+A = 2" in diff_checkout(checkout)
    assert "lib/a.py" in list_tracked_files(repo.folder)


def test_a_submodule_whose_settings_name_programs_is_looked_into_without_them(repo: Repo, ran: Path) -> None:
    inner = Repo(ran.with_name("inner"))
    inner.commit({".gitattributes": "*.py filter=evil\n", "inner.py": "1\n"})
    repo.git("submodule", "--quiet", "add", inner.url, "inner")
    repo.commit({"more.py": "1\n"})
    _poison(repo.folder / ".git/modules/inner", script(ran))
    (repo.folder / "inner/inner.py").write_text("2\n")
    (repo.folder / "more.py").write_text("2\n")
    checkout = read_checkout(repo.folder)
    assert checkout is not None
    assert set(checkout.changed) == {"inner", "more.py"}
    assert "+2" in diff_checkout(checkout)


def _poison(settings: Path, program: Path) -> None:
    """Name the program wherever git's settings and hooks could."""
    for hook in ("post-checkout", "post-index-change", "fsmonitor-watchman", "pre-auto-gc", "reference-transaction",
                 "post-merge", "pre-commit", "sendemail-validate", "pre-receive", "update", "post-update"):  # fmt: skip
        path = settings / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(program.read_bytes())
        path.chmod(0o755)
    with (settings / "config").open("a") as file:
        file.write(f"""
[core]
    fsmonitor = {program}
    sshCommand = {program}
    pager = {program}
    editor = {program}
    askPass = {program}
    gitProxy = {program}
    alternateRefsCommand = {program}
    hooksPath = {settings / "hooks"}
[filter "evil"]
    clean = {program}
    smudge = {program}
    process = {program}
    required = true
[filter "other"]
    clean = {program}
[diff "evil"]
    textconv = {program}
    command = {program}
[diff]
    external = {program}
[merge "evil"]
    driver = {program}
[uploadpack]
    packObjectsHook = {program}
[credential]
    helper = {program}
[gpg]
    program = {program}
[log]
    showSignature = true
[alias]
    status = !{program}
    ls-tree = !{program}
[remote "origin"]
    url = ext::{program}
    vcs = ext
    uploadpack = {program}
[submodule "x"]
    update = !{program}
""")


@pytest.mark.parametrize(
    "url",
    ["ext::sh -c touch% {ran}", "--upload-pack=touch {ran}", "ssh://-oProxyCommand=touch%20{ran}/x", "-x", "fd::3"],
)
def test_a_submodule_whose_address_is_a_program_is_refused(
    url: str, repo: Repo, ran: Path, commits: CommitSource
) -> None:
    head = _with_submodule(repo, url.format(ran=ran), "1" * 40)
    with pytest.raises(RepoUnreachable):
        write_commit(commits, repo.url, head, ran.with_name("tree"))


@pytest.mark.parametrize("form", ["{url}", "{path}", "FILE://{path}", "file://localhost{path}"])
def test_a_submodule_of_a_repository_elsewhere_is_none_of_this_machine(
    form: str, repo: Repo, tmp_path: Path, commits: CommitSource
) -> None:
    secret = Repo(tmp_path / "secret")
    inner = secret.commit({"secret.py": "SECRET = 1\n"})
    head = _with_submodule(repo, form.format(url=secret.url, path=secret.folder), inner)
    kept = commits.obtain_repository(repo.url, head)
    elsewhere = "https://127.0.0.1:9/node.git"
    with pytest.raises(TreeRefused, match="this machine"):
        list_submodules(kept, elsewhere, head)
    with pytest.raises(TreeRefused, match="this machine"):
        write_commit(commits, elsewhere, head, tmp_path / "tree")
    assert not list((tmp_path / "tree").rglob("secret.py"))


def test_submodules_that_never_end_are_refused(repo: Repo, tmp_path: Path, commits: CommitSource) -> None:
    head = repo.commit({"a.py": ""})
    for _ in range(12):
        head = _with_submodule(repo, repo.url, head)
    with pytest.raises(TreeRefused, match="submodules"):
        write_commit(commits, repo.url, head, tmp_path / "tree")


def _with_submodule(repo: Repo, url: str, commit: str) -> str:
    quoted = url.replace("\\", "\\\\").replace('"', '\\"')
    (repo.folder / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = x\n\turl = "{quoted}"\n\tupdate = !touch x\n')
    repo.git("add", ".gitmodules")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{commit},x")
    repo.git("commit", "--quiet", "--allow-empty", "--message", "a submodule")
    return repo.git("rev-parse", "HEAD")


# -- The environment of whoever calls us -------------------------------------------------------------------------------

VARIABLES = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE",
    "GIT_CEILING_DIRECTORIES", "GIT_IMPLICIT_WORK_TREE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_LITERAL_PATHSPECS",
    "GIT_ICASE_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_DEFAULT_HASH", "GIT_TEMPLATE_DIR",
    "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS", "GIT_PAGER", "GIT_EDITOR", "GIT_ATTR_SOURCE", "GIT_QUARANTINE_PATH",
    "GIT_NO_REPLACE_OBJECTS", "GIT_CONFIG",
)  # fmt: skip


def test_variables_that_have_git_see_another_repository_change_nothing(
    repo: Repo, ran: Path, commits: CommitSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Repo(ran.with_name("other"))
    other.commit({"other.py": ""})
    program = script(ran)
    head = repo.commit({"lib/a.py": "A = 2\n"})
    (repo.folder / "lib/a.py").write_text("A = 3\n")
    values = {
        "GIT_INDEX_FILE": other.folder / ".git/index", "GIT_TEMPLATE_DIR": other.folder, "GIT_DEFAULT_HASH": "sha256",
        "GIT_WORK_TREE": other.folder, "GIT_OBJECT_DIRECTORY": other.folder / ".git/objects", "GIT_ATTR_SOURCE": "HEAD",
        "GIT_EXTERNAL_DIFF": program, "GIT_PAGER": program, "GIT_EDITOR": program, "GIT_PREFIX": "lib/",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": other.folder / ".git/objects", "GIT_DIFF_OPTS": "-u0", "GIT_NAMESPACE": "x",
    }  # fmt: skip
    for name in VARIABLES:
        monkeypatch.setenv(name, os.fspath(values.get(name, other.folder / ".git" if "DIR" in name else "1")))
    assert resolve_ref(repo.url, "main") == head
    write_commit(commits, repo.url, head, ran.with_name("tree"))
    assert (ran.with_name("tree") / "lib/a.py").read_text() == "A = 2\n"
    checkout = read_checkout(repo.folder)
    assert checkout is not None
    assert (checkout.commit, checkout.changed) == (head, ("lib/a.py",))
    assert "-A = 2\n+A = 3\n" in diff_checkout(checkout)


# -- Trees that git would not make -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    ["/etc/passwd", "../outside", "../../outside", "lib/../../outside", "/", "..", "", "./../outside", "x/../../y"],
)
def test_a_link_that_leads_out_is_refused(target: str, repo: Repo, tmp_path: Path, commits: CommitSource) -> None:
    head = _crafted(repo, [("120000", "blob", "link", target.encode())])
    with pytest.raises(TreeRefused):
        write_commit(commits, repo.url, head, tmp_path / "tree")


@pytest.mark.parametrize(
    "entries",
    [
        [("120000", "blob", "a", b"/tmp"), ("040000", "tree", "a", b"x.py")],
        [("120000", "blob", "a", b"lib"), ("040000", "tree", "a", b"x.py")],
        [("100644", "blob", "a", b"1"), ("100644", "blob", "a", b"2")],
        [("100644", "blob", "a", b"1"), ("040000", "tree", "a", b"x.py")],
        [("120000", "blob", "a", b"lib"), ("120000", "blob", "a", b"lib")],
        [("100644", "blob", "..", b"1")],
        [("100644", "blob", ".git", b"1")],
        [("100644", "blob", ".GIT", b"1")],
        [("040000", "tree", ".git", b"config")],
        [("040000", "tree", "..", b"x.py")],
        [("100644", "blob", "x" * 300, b"1")],
        [("160000", "commit", "..", b"")],
        [("160000", "commit", "lib", b"")],
    ],
    ids=lambda entries: "+".join(f"{mode} {name[:9]}" for mode, _, name, _ in entries),
)
def test_a_tree_that_git_would_not_make_is_refused(
    entries: list[tuple[str, str, str, bytes]], repo: Repo, tmp_path: Path, commits: CommitSource
) -> None:
    head = _crafted(repo, entries)
    (tmp_path / "in").mkdir()
    with pytest.raises(TreeRefused):
        write_commit(commits, repo.url, head, tmp_path / "in/tree")
    assert {path.name for path in (tmp_path / "in").iterdir()} <= {"tree"}


def _crafted(repo: Repo, entries: list[tuple[str, str, str, bytes]]) -> str:
    """A commit of a tree with these entries, as they are: mode, kind, name, and content (for a tree: a file's name)."""

    def put(kind: str, data: bytes) -> bytes:
        done = subprocess.run(
            ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"],
            cwd=repo.folder, input=data, capture_output=True, check=True,
        )  # fmt: skip
        return bytes.fromhex(done.stdout.decode().strip())

    tree = b""
    for mode, kind, name, content in entries:
        if kind == "commit":
            oid = bytes(20)
        elif kind == "tree":
            oid = put("tree", b"100644 " + content + b"\0" + put("blob", b"x"))
        else:
            oid = put("blob", content)
        tree += f"{mode.lstrip('0')} {name}".encode() + b"\0" + oid
    who = b"t <t@example.org> 0 +0000"
    head = put(
        "commit", b"tree %s\nauthor %s\ncommitter %s\n\nx\n" % (put("tree", tree).hex().encode(), who, who)
    ).hex()
    repo.git("update-ref", "refs/heads/main", head)
    return head


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../out.py", 0o644), ("/tmp/out.py", 0o644), ("a/../../out.py", 0o644), ("link", stat.S_IFLNK | 0o777),
        ("lib/link", stat.S_IFLNK | 0o777), ("..", 0o644), ("x" * 300, 0o644), ("a.py/b.py", 0o644), ("a.py", 0o644),
    ],
)  # fmt: skip
def test_an_archive_of_the_registry_that_leads_out_is_refused(name: str, mode: int, tmp_path: Path) -> None:
    archives = tmp_path / "cache" / "archives"
    archives.mkdir(parents=True)
    made = tmp_path / "node.zip"
    with zipfile.ZipFile(made, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice
        archive.writestr("a.py", "1")
        item = zipfile.ZipInfo(name)
        item.external_attr = mode << 16
        archive.writestr(item, "/etc/passwd")
    digest = Digest.of_file(made)
    made.rename(archives / f"{digest.hex}.zip")
    lock = small_release(tmp_path / "release").lock
    node = NodePin(name="node", repo=None, archive="http://127.0.0.1:9/node.zip", sha256=digest)
    home = tmp_path / "home"
    options = RealizeOptions(
        home=Home(root=home), models_dir=home / "models", locations=SourceLocations(cache=tmp_path / "cache")
    )
    with pytest.raises(ArchiveUnusable):
        realize_env(replace(lock, custom_nodes=(node,)), options)
    assert not list(tmp_path.rglob("out.py"))
    assert [path for path in (home / "builds").rglob("*") if path.is_symlink() and "node" in path.parts] == []


# -- Patches of locks --------------------------------------------------------------------------------------------------

NEW_LINK = (
    "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n"
    "@@ -0,0 +1 @@\n+{target}\n\\ No newline at end of file\n"
)
NEW_FILE = "diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"


@pytest.mark.parametrize(
    "path", ["../out.py", "/tmp/out.py", ".git/hooks/post-checkout", "a/../../out.py", "up/out.py"]
)
def test_a_patch_writes_nothing_outside_its_folder(path: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "folder"
    folder.mkdir(parents=True)
    (folder / "up").symlink_to("..")
    with pytest.raises(PatchUnfit):
        apply_patch(folder, NEW_FILE.format(path=path), what="a node")
    assert [entry.name for entry in folder.parent.rglob("*")] == ["folder", "up"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", "../x"])
def test_a_patch_makes_no_link_that_leads_out(target: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(PatchUnfit, match="leads out"):
        apply_patch(folder, NEW_LINK.format(target=target), what="a node")


def test_a_patch_of_two_steps_does_not_write_through_its_own_link(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(PatchUnfit):
        apply_patch(folder, NEW_LINK.format(target="..") + NEW_FILE.format(path="l/out.py"), what="a node")
    assert not (tmp_path / "out.py").exists()


# -- Links that stay inside, through all that is done with an env ------------------------------------------------------


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> SmallRelease:
    release = small_release(tmp_path_factory.mktemp("linked"))
    node = release.nodes["node-one"]
    for name, target in (
        ("loop", "."), ("self", "self"), ("there", "back"), ("back", "there"), ("dangling", "nowhere/at/all"),
        ("lib/up", ".."), ("lib/to-file.py", "helper.py"), ("deep", "lib/up/lib/up/lib/helper.py"), ("install.py",
        "nowhere"),
    ):  # fmt: skip
        (node.folder / name).symlink_to(target)
    commit = node.commit({})
    first, *others = release.lock.custom_nodes
    return release.changed(custom_nodes=(replace(first, commit=commit), *others))


def test_an_env_with_loops_and_dangling_links_is_made_packed_and_checked(linked: SmallRelease) -> None:
    def options(name: str, *, publish: bool) -> RealizeOptions:
        home = linked.root / name
        return RealizeOptions(
            home=Home(root=home),
            models_dir=home / "models",
            locations=SourceLocations(cache=linked.root / "cache"),
            pack_store=FolderPackStore(linked.root / "packs"),
            publish=publish,
        )

    built = realize_env(linked.lock, options("built", publish=True))
    unpacked = realize_env(linked.lock, options("unpacked", publish=False))
    assert (built.action, unpacked.action) == ("build", "unpack")
    assert hash_files(unpacked.folder) == hash_files(built.folder)
    node = unpacked.folder / "ComfyUI/custom_nodes/node-one"
    assert (node / "loop").readlink() == Path()
    assert stat.S_ISLNK((node / "self").lstat().st_mode)
    for name in ("built", "unpacked"):
        assert check_env(Home(root=linked.root / name), linked.lock).drifts == ()
