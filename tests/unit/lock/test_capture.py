"""Locks from living ComfyUIs and from snapshots."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.errors.create import CaptureRefused, NotComfyUI, SnapshotUnreadable
from comfypin.lock.capture import CaptureWishes, capture
from comfypin.lock.create import Made
from comfypin.lock.digests import DigestCache
from comfypin.lock.parts import Places
from comfypin.lock.registry import Registry
from comfypin.lock.snapshot import read_snapshot
from comfypin.tools.git import Commits, apply_patch, write_commit
from comfypin.tools.packages import uv
from tests.support.repositories import commit, git

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def silent(_: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The remotes of a ComfyUI and a node, and a venv with one package."""
    root = tmp_path_factory.mktemp("origin")
    ignored = "models/\ncustom_nodes/\n.venv/\n"
    commit(root / "comfyui", {"main.py": "", ".gitignore": ignored, "nodes.py": "1\n"})
    commit(root / "pack", {"__init__.py": "1\n", "install.py": "print(1)\n"})
    uv(["venv", "--quiet", "--python", sys.executable, root / "venv"])
    installed = uv(["pip", "install", "--quiet", "idna==3.7", "--python", root / "venv"])
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


def captured(home: Path, origin: Path, **changes: object) -> Made:
    wishes = CaptureWishes(name="live", folder=home, interpreter=origin / "venv" / "bin" / "python")
    cache = home.parent / "cache"
    places = Places(
        commits=Commits(cache=cache / "git"), registry=Registry(url="http://127.0.0.1:9"), archives=cache / "archives"
    )
    digests = DigestCache(cache / "digests.json")
    return capture(replace(wishes, **changes), places=places, digests=digests, tell=silent)  # type: ignore[arg-type]


def reasons(home: Path, origin: Path) -> str:
    with pytest.raises(CaptureRefused) as caught:
        captured(home, origin)
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
    for name in ("models/vae/y.safetensors", "output/a.png", "user/x.json", ".venv/pyvenv.cfg", "__pycache__/main.pyc"):
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
    write_commit(Commits(cache=tmp_path / "again"), str(pin.repo), str(pin.commit), tmp_path / "out")
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


def test_an_unchanged_file_is_hashed_once(tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.write_bytes(b"one")
    cache = DigestCache(tmp_path / "c.json")
    assert cache.digest_of(model) == Digest.of(b"one")
    cache.save()
    (tmp_path / "c.json").write_text((tmp_path / "c.json").read_text().replace(Digest.of(b"one").hex, "ab" * 32))
    assert DigestCache(tmp_path / "c.json").digest_of(model) == Digest("ab" * 32)
    model.write_bytes(b"other")
    assert DigestCache(tmp_path / "c.json").digest_of(model) == Digest.of(b"other")


def test_a_damaged_cache_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("[oops")
    (tmp_path / "m").write_bytes(b"one")
    assert DigestCache(tmp_path / "c.json").digest_of(tmp_path / "m") == Digest.of(b"one")


def a_snapshot(tmp_path: Path, **changes: object) -> Path:
    document = {
        "comfyui": COMMIT,
        "git_custom_nodes": {
            "https://x.org/o/one.git": {"hash": COMMIT, "disabled": False},
            "https://x.org/o/two": {"hash": COMMIT, "disabled": True},
        },
        "cnr_custom_nodes": {"pack": "1.0.0"},
        "file_custom_nodes": [{"filename": "a.py", "disabled": True}],
        "pips": {"idna==3.7": "", "requests": "2.32.0"},
        **changes,
    }
    path = tmp_path / "snapshot.json"
    path.write_text(json.dumps(document))
    return path


def test_a_managers_snapshot_is_read(tmp_path: Path) -> None:
    snapshot = read_snapshot(a_snapshot(tmp_path))
    assert snapshot.comfyui.ref == COMMIT
    assert [(node.repo, node.ref) for node in snapshot.nodes] == [
        ("https://x.org/o/one.git", COMMIT),
        ("registry://pack", "1.0.0"),
    ]
    assert snapshot.packages == ("idna==3.7", "requests==2.32.0")
    assert snapshot.unpinnable == ()
    assert len(snapshot.left_out) == 2


def test_what_a_snapshot_cannot_bring_elsewhere_is_named(tmp_path: Path) -> None:
    path = a_snapshot(
        tmp_path,
        file_custom_nodes=[{"filename": "a.py", "disabled": False}],
        cnr_custom_nodes={"pack": "nightly", "other": None},
        pips={"mine @ file:///home/me/mine": "", "-e git+https://x": ""},
    )
    assert len(read_snapshot(path).unpinnable) == 5


def test_a_comfy_lock_yaml_is_read_with_its_models(tmp_path: Path) -> None:
    path = tmp_path / "comfy-lock.yaml"
    path.write_text(
        f"""
basic: null
models:
  - model: a.safetensors
    url: https://x.org/a.safetensors
    paths:
      - path: models/vae/a.safetensors
    hashes:
      - {{hash: {"AB" * 32}, type: SHA256}}
    type: vae
custom_nodes:
  comfyui: {COMMIT}
  git_custom_nodes:
    https://x.org/o/one: {{disabled: false, hash: {COMMIT}}}
"""
    )
    snapshot = read_snapshot(path)
    assert [node.name for node in snapshot.nodes] == ["one"]
    assert snapshot.models[0].target == "vae/a.safetensors"
    assert snapshot.models[0].sha256 == Digest("ab" * 32)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "a: &x [1]\nb: *x",
        "!!python/object/apply:os.system ['id']",
        "comfyui: [1]",
        '{"nodes": []}',
        '{"comfyui": "x", "git_custom_nodes": [1]}',
        '{"comfyui": "x", "file_custom_nodes": {"a": 1}}',
        '{"comfyui": "x", "models": [{"model": "a"}]}',
        "\x00",
    ],
)
def test_what_is_no_snapshot_is_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SnapshotUnreadable):
        read_snapshot(tmp_path / "x.yaml")
