"""Snapshots, and what a capture remembers of files."""

import json
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.locking.errors import SnapshotUnreadable
from comfypin.locking.manager_snapshot import read_snapshot

COMMIT = "0123456789abcdef0123456789abcdef01234567"


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
