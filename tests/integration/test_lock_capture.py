"""Locks of living ComfyUIs, with packages that are really installed."""

import sys
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import pytest

from comfypin.digest import Digest
from comfypin.digest_cache import DigestCache
from comfypin.lock.check import check_lock
from comfypin.locking.capture import capture_lock
from comfypin.locking.capture_request import CaptureRequest
from comfypin.locking.create import MadeLock
from comfypin.locking.errors import CaptureRefused, NotComfyUI
from comfypin.locking.node_registry import NodeRegistry
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.sources import Upstreams
from comfypin.tools.git import CommitSource, apply_patch, write_commit
from comfypin.tools.uv import run_uv
from tests.support.repositories import commit, git

pytestmark = pytest.mark.network


def silent(_: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The remotes of a ComfyUI and a node, and a venv with one package."""
    root = tmp_path_factory.mktemp("origin")
    ignored = "models/\ncustom_nodes/\n.venv/\n"
    commit(root / "comfyui", {"main.py": "", ".gitignore": ignored, "nodes.py": "1\n"})
    commit(root / "pack", {"__init__.py": "1\n", "install.py": "print(1)\n"})
    run_uv(["venv", "--quiet", "--python", sys.executable, root / "venv"])
    installed = run_uv(["pip", "install", "--quiet", "idna==3.7", "--python", root / "venv"])
    assert installed.exit_code == 0, installed.stderr
    return root


@pytest.fixture
def home(origin: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "--quiet", origin.joinpath("comfyui").as_uri(), "ComfyUI")
    home = tmp_path / "ComfyUI"
    (home / "custom_nodes").mkdir()
    git(home / "custom_nodes", "clone", "--quiet", origin.joinpath("pack").as_uri(), "pack")
    (home / "custom_nodes" / "off.disabled").mkdir()
    (home / "custom_nodes" / "__pycache__").mkdir()
    (home / "models" / "vae").mkdir(parents=True)
    (home / "models" / "vae" / "put_vae_here").touch()
    (home / "models" / "vae" / "x.safetensors").write_bytes(b"model")
    (home / "models" / "vae" / "up").symlink_to(home / "models")
    return home


def captured(home: Path, origin: Path, **changes: object) -> MadeLock:
    wishes = CaptureRequest(name="live", folder=home, interpreter=origin / "venv" / "bin" / "python")
    cache = home.parent / "cache"
    places = Upstreams(
        commits=CommitSource(cache=cache / "git"),
        registry=NodeRegistry(url="http://127.0.0.1:9"),
        archives=cache / "archives",
    )
    digests = DigestCache(cache / "digests.jsonl")
    return capture_lock(replace(wishes, **changes), upstreams=places, digests=digests, report=silent)  # type: ignore[arg-type]


def reasons(home: Path, origin: Path, **changes: object) -> str:
    with pytest.raises(CaptureRefused) as caught:
        captured(home, origin, **changes)
    return caught.value.message


def test_a_living_comfyui_is_captured_as_it_is(home: Path, origin: Path) -> None:
    lock = captured(home, origin).lock
    assert lock.comfyui is not None
    assert (lock.comfyui.commit, lock.comfyui.ref) == (git(origin / "comfyui", "rev-parse", "main"), "main")
    (node,) = lock.custom_nodes
    assert (node.folder, node.repo) == ("pack", (origin / "pack").as_uri())
    assert (node.install_script, node.install_script_sha256) == ("skip", Digest.of(b"print(1)\n"))
    assert [(pin.name, pin.version, len(pin.sha256)) for pin in lock.python.packages] == [("idna", "3.7", 1)]
    (model,) = lock.models
    assert (model.target_path, model.sha256) == ("$MODELS_DIR/vae/x.safetensors", Digest.of(b"model"))


def test_what_comfyui_requires_and_nobody_installed_stays_a_requirement(home: Path, origin: Path) -> None:
    (home / "requirements.txt").write_text("idna\niniconfig>=2 ; python_version > '3'\n")
    lock = captured(home, origin, allow_dirty=True, with_models=False).lock
    assert lock.python.requirements == ("iniconfig>=2",)
    assert [finding.path for finding in check_lock(lock) if finding.rule == "package-not-pinned"] == [
        "$.python.requirements[0]"
    ]


def test_models_in_other_folders_are_captured_as_comfyui_sees_them(home: Path, origin: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    for name, content in (("sd/a.safetensors", "a"), ("own/sub/b.safetensors", "b"), ("vaes/x.safetensors", "other")):
        (more / name).parent.mkdir(parents=True, exist_ok=True)
        (more / name).write_text(content)
    text = f"here:\n  base_path: {more}\n  is_default: true\n  checkpoints: |\n    sd\n    gone\n  vae: vaes/\n"
    text += "there:\n  loras: ../more/own\n  custom_nodes: nodes\n  vae: models/vae\nnothing:\n"
    (home / "extra_model_paths.yaml").write_text(text)
    made = captured(home, origin, allow_dirty=True)
    assert {pin.target_path: pin.sha256 for pin in made.lock.models} == {
        "$MODELS_DIR/checkpoints/a.safetensors": Digest.of(b"a"),
        "$MODELS_DIR/loras/sub/b.safetensors": Digest.of(b"b"),
        "$MODELS_DIR/vae/x.safetensors": Digest.of(b"model"),
    }
    assert any("vae/x.safetensors is in two folders" in note for note in made.notes)
    assert any("names the nodes in" in note for note in made.notes)


def test_model_paths_that_cannot_be_read_are_said(home: Path, origin: Path) -> None:
    (home / "extra_model_paths.yaml").write_text("a: [\n")
    assert any("cannot be read" in note for note in captured(home, origin, allow_dirty=True).notes)


def test_nodes_that_are_disabled_are_left_out_and_said(home: Path, origin: Path) -> None:
    (home / "custom_nodes/.disabled/older").mkdir(parents=True)
    notes = captured(home, origin, with_models=False).notes
    assert [name for name in ("off", "older") if any(f"node {name} is disabled" in note for note in notes)] == [
        "off",
        "older",
    ]


def test_changes_are_refused_all_at_once(home: Path, origin: Path) -> None:
    (home / "nodes.py").write_text("2\n")
    (home / "custom_nodes" / "pack" / "new.py").write_text("x")
    (home / "custom_nodes" / "single.py").write_text("x")
    (home / "custom_nodes" / "plain").mkdir()
    said = reasons(home, origin)
    for part in (
        "ComfyUI has changes (nodes.py)",
        "pack has changes (new.py)",
        "single.py is a single file",
        "plain is neither",
    ):
        assert part in said


def test_folders_that_are_not_comfyuis_own_are_no_changes(home: Path, origin: Path, tmp_path: Path) -> None:
    """Some forks have no .gitignore that names them."""
    git(home, "rm", "--quiet", "--cached", ".gitignore")
    (home / ".gitignore").unlink()
    own = ("models/vae/y.safetensors", "output/a.png", "user/x.json", ".venv/pyvenv.cfg", "__pycache__/main.pyc")
    # The last are what realizing a lock leaves in its home.
    for name in (*own, "builds/k/receipt.json", "leases/l", "current.lock.json"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("x")
    assert "ComfyUI has changes (.gitignore)" in reasons(home, origin)
    (home / "models/tracked.txt").write_text("x")
    git(home, "add", "--force", "models/tracked.txt")
    patch = str(captured(home, origin, allow_dirty=True, with_models=False).lock.comfyui.patch)  # type: ignore[union-attr]
    assert {line.split(" b/")[1] for line in patch.splitlines() if line.startswith("diff ")} == {
        ".gitignore",
        "models/tracked.txt",
    }


def test_allowed_changes_are_stored_as_a_diff_that_brings_them_back(home: Path, origin: Path, tmp_path: Path) -> None:
    (home / "nodes.py").write_text("2\n")
    (home / "added.py").write_text("new\n")
    pin = captured(home, origin, allow_dirty=True, with_models=False).lock.comfyui
    assert pin is not None
    write_commit(CommitSource(cache=tmp_path / "again"), str(pin.repo), str(pin.commit), tmp_path / "out")
    apply_patch(tmp_path / "out", str(pin.patch), what="patch")
    assert (tmp_path / "out" / "nodes.py").read_text() == "2\n"
    assert (tmp_path / "out" / "added.py").read_text() == "new\n"


def test_a_commit_that_was_never_pushed_is_refused(home: Path, origin: Path) -> None:
    commit(home, {"nodes.py": "3\n"})
    assert "does not have commit" in reasons(home, origin)


def test_a_checkout_without_a_remote_is_refused(home: Path, origin: Path) -> None:
    git(home / "custom_nodes" / "pack", "remote", "remove", "origin")
    assert "the node pack has no git remote" in reasons(home, origin)


def test_a_users_token_in_a_remote_does_not_reach_the_lock(home: Path, origin: Path) -> None:
    git(home, "remote", "set-url", "origin", "https://me:hunter2@x.org/o/r")
    pin = captured(home, origin, verify=False, with_models=False, left_out=frozenset({"pack"})).lock.comfyui
    assert pin is not None
    assert pin.repo == "https://x.org/o/r"


def test_a_home_with_a_comfyui_in_it_is_captured_too(home: Path, origin: Path) -> None:
    (home.parent / "models" / "vae").mkdir(parents=True)
    (home.parent / "models" / "vae" / "y.safetensors").write_bytes(b"another")
    made = captured(home, origin, folder=home.parent)
    assert made.lock.comfyui == captured(home, origin).lock.comfyui
    assert [model.target_path for model in made.lock.models] == ["$MODELS_DIR/vae/y.safetensors"]
    assert any("--models-dir names another folder" in note for note in made.notes)


def test_a_folder_that_is_no_comfyui_is_refused(origin: Path, tmp_path: Path) -> None:
    with pytest.raises(NotComfyUI):
        captured(tmp_path, origin)


@pytest.fixture
def unpacked(home: Path) -> Path:
    """The same files without `.git`, as an archive or an image brings them, with the node that ComfyUI ships."""
    rmtree(home / ".git")
    (home / "custom_nodes/websocket_image_save.py").write_text("shipped\n")
    (home / "comfyui_version.py").write_text('__version__ = "0.33.0"\n')
    return home


@pytest.fixture
def release(origin: Path, tmp_path: Path) -> RepoSpec:
    """A repository of the ComfyUI that `unpacked` holds, tagged as its release."""
    files = {name: (origin / "comfyui" / name).read_text() for name in ("main.py", ".gitignore", "nodes.py")}
    shipped = {"custom_nodes/websocket_image_save.py": "shipped\n", "models/vae/put_vae_here": "", "input/a.png": "a"}
    upstream = tmp_path / "upstream"
    commit(upstream, {**files, "comfyui_version.py": '__version__ = "0.33.0"\n'})
    for name, content in shipped.items():
        (upstream / name).parent.mkdir(parents=True, exist_ok=True)
        (upstream / name).write_text(content)
    git(upstream, "add", "--force", *shipped)
    commit(upstream, {}, tag="v0.33.0")
    return RepoSpec(repo=upstream.as_uri(), ref="v0.33.0")


def test_a_comfyui_without_git_is_told_the_flag_that_names_its_commit(unpacked: Path, origin: Path) -> None:
    said = reasons(unpacked, origin)
    assert "is not a git checkout" in said
    assert said.endswith("--comfyui https://github.com/comfyanonymous/ComfyUI@v0.33.0")
    # What ComfyUI ships is not a node of somebody's own.
    assert "websocket_image_save" not in said


def test_a_comfyui_without_git_is_captured_as_the_commit_it_is(unpacked: Path, origin: Path, release: RepoSpec) -> None:
    lock = captured(unpacked, origin, comfyui=release).lock
    assert lock.comfyui is not None
    assert (lock.comfyui.repo, lock.comfyui.ref, lock.comfyui.patch) == (release.repo, "v0.33.0", None)
    assert lock.comfyui.commit == git(unpacked.parent / "upstream", "rev-parse", "HEAD")
    assert [node.folder for node in lock.custom_nodes] == ["pack"]
    assert [model.name for model in lock.models] == ["x.safetensors"]
    by_commit = captured(unpacked, origin, comfyui=replace(release, ref=lock.comfyui.commit)).lock
    assert by_commit.comfyui == replace(lock.comfyui, ref=None)


def test_what_differs_from_the_named_commit_is_said_or_stored(
    unpacked: Path, origin: Path, release: RepoSpec, tmp_path: Path
) -> None:
    (unpacked / "nodes.py").write_text("2\n")
    (unpacked / "more.py").write_text("3\n")
    (unpacked / "comfyui_version.py").unlink()
    before = sorted(path.relative_to(unpacked) for path in unpacked.rglob("*"))
    said = reasons(unpacked, origin, comfyui=release)
    assert "differs from" in said
    assert "in 3 files (comfyui_version.py is missing, nodes.py, more.py)" in said
    lock = captured(unpacked, origin, comfyui=release, allow_dirty=True).lock
    assert lock.comfyui is not None
    assert lock.comfyui.commit is not None
    assert lock.comfyui.patch is not None
    write_commit(CommitSource(cache=tmp_path / "git"), release.repo, lock.comfyui.commit, tmp_path / "made")
    apply_patch(tmp_path / "made", lock.comfyui.patch, what="ComfyUI")
    assert (tmp_path / "made/nodes.py").read_text() == "2\n"
    assert (tmp_path / "made/more.py").read_text() == "3\n"
    assert not (tmp_path / "made/comfyui_version.py").exists()
    assert sorted(path.relative_to(unpacked) for path in unpacked.rglob("*")) == before


def test_a_checkout_is_not_told_which_commit_it_is(home: Path, origin: Path, release: RepoSpec) -> None:
    assert "omit --comfyui" in reasons(home, origin, comfyui=release)
