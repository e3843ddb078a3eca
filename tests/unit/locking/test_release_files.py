"""Files of other tools: each is read as its tool writes it, and what no lock can hold is named."""

import json
import zipfile
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.locking.errors import SnapshotUnreadable
from comfypin.locking.release_files.document import ReleaseFile
from comfypin.locking.release_files.registry import read_release_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA256 = "ab" * 32


def read(tmp_path: Path, document: object) -> ReleaseFile:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(document))
    return read_release_file(path)


def a_snapshot(**changes: object) -> dict[str, object]:
    return {
        "comfyui": COMMIT,
        "git_custom_nodes": {
            "https://x.org/o/one.git": {"hash": COMMIT, "disabled": False},
            "https://x.org/o/two": {"hash": COMMIT, "disabled": True},
        },
        "cnr_custom_nodes": {"pack": "1.0.0"},
        "file_custom_nodes": [{"filename": "a.py", "disabled": True}, {"filename": "b.py", "disabled": False}],
        "pips": {"idna==3.7": "", "requests": "2.32.0"},
        **changes,
    }


def test_a_managers_snapshot_is_read(tmp_path: Path) -> None:
    release = read(tmp_path, a_snapshot())
    assert release.kind == "a ComfyUI-Manager snapshot"
    assert release.comfyui is not None
    assert release.comfyui.ref == COMMIT
    assert [(node.repo, node.ref) for node in release.nodes] == [
        ("https://x.org/o/one.git", COMMIT),
        ("registry://pack", "1.0.0"),
    ]
    assert release.installed == ("idna==3.7", "requests==2.32.0")
    assert release.node_files == ("b.py",)
    assert release.unpinnable == ()
    assert release.left_out == ("https://x.org/o/two", "two", "a.py")


def test_what_a_snapshot_cannot_bring_elsewhere_is_named(tmp_path: Path) -> None:
    release = read(
        tmp_path,
        a_snapshot(
            cnr_custom_nodes={"pack": "nightly", "other": None},
            pips={"mine @ file:///home/me/mine": "", "-e git+https://x.org/y#egg=y": ""},
        ),
    )
    assert [part.names[-1] for part in release.unpinnable] == ["pack", "other", "mine", "y"]


def test_a_wheel_of_that_machine_is_taken_from_the_index_by_its_version(tmp_path: Path) -> None:
    pips = {
        "attrs @ file:///D:/a/deps/attrs-24.3.0-py3-none-any.whl#sha256=ac96": "",
        "Own_Thing @ file:///D:/a/deps/own_thing-1.0%2Bcu124-cp312-cp312-win_amd64.whl": "",
        "odd @ file:///D:/a/deps/odd.whl": "",
    }
    release = read(tmp_path, a_snapshot(pips=pips))
    assert release.installed == ("attrs==24.3.0", "own-thing==1.0+cu124")
    assert release.notes[-1].endswith("the same versions of the index are taken: attrs==24.3.0, own-thing==1.0+cu124")
    assert [part.names for part in release.unpinnable] == [("odd",)]


def test_a_digest_that_is_none_costs_its_model_and_not_the_file(tmp_path: Path) -> None:
    models = [
        {"model": "cut", "url": "https://x.org/cut.safetensors", "hashes": [{"hash": "31e35c", "type": "SHA256"}]},
        {"model": "kept", "url": "https://x.org/kept.safetensors", "hashes": [{"hash": SHA256, "type": "SHA256"}]},
    ]
    release = read(tmp_path, a_snapshot(models=models))
    assert [model.name for model in release.models] == ["kept"]
    assert [part.names[-1] for part in release.unpinnable] == ["cut"]


def test_what_a_snapshot_says_beyond_pins_is_said(tmp_path: Path) -> None:
    assert read(tmp_path, a_snapshot(post_install_commands=["pip install x"])).notes[-1] == (
        "its post_install_commands is not read"
    )


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
      - {{hash: {SHA256.upper()}, type: SHA256}}
    type: vae
custom_nodes:
  comfyui: {COMMIT}
  git_custom_nodes:
    https://x.org/o/one: {{disabled: false, hash: {COMMIT}}}
"""
    )
    release = read_release_file(path)
    assert [node.name for node in release.nodes] == ["one"]
    assert release.models[0].target == "vae/a.safetensors"
    assert release.models[0].sha256 == Digest(SHA256)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[1]",
        "{",
        "a: &x [1]\nb: *x",
        "!!python/object/apply:os.system ['id']",
        "comfyui: [1]",
        '{"nodes": []}',
        '{"comfyui": "x", "git_custom_nodes": [1]}',
        '{"comfyui": "x", "file_custom_nodes": {"a": 1}}',
        '{"comfyui": "x", "models": [{"model": "a"}]}',
        '{"schema": "comfy-build/2", "definition": {}}',
        '{"schema": "comfy-build/1", "definition": []}',
        '{"schema": "comfy-build/1", "definition": {"pipDependencies": ["idna"]}}',
        '{"type": "comfyui-desktop-2-snapshot", "version": 3, "snapshots": []}',
        '{"type": "comfyui-desktop-2-snapshot", "version": 2, "snapshots": []}',
        '{"customNodes": [], "comfyui": {}}',
        '{"comfyui": "x", "custom_nodes": [1]}',
        '{"comfyui": "x", "custom_nodes": [], "models": [{"filename": ""}]}',
        '{"models": [{"save_path": "default", "url": ""}]}',
        "\x00",
    ],
)
def test_what_is_no_such_file_is_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SnapshotUnreadable):
        read_release_file(tmp_path / "x.yaml")


def a_desktop_snapshot(**changes: object) -> dict[str, object]:
    return {
        "version": 1,
        "createdAt": "2026-02-01T00:00:00.000Z",
        "trigger": "manual",
        "comfyui": {"ref": "v0.30.2", "commit": COMMIT, "releaseTag": "v0.30.2", "variant": "nvidia"},
        "customNodes": [
            {"type": "cnr", "id": "pack", "dirName": "Pack", "version": "1.0.0", "enabled": True},
            {"type": "git", "id": "g", "dirName": "g", "url": "https://x.org/g", "commit": COMMIT, "enabled": True},
            {"type": "git", "id": "off", "dirName": "off", "url": "https://x.org/o", "enabled": False},
            {"type": "file", "id": "a.py", "dirName": "a.py", "enabled": True},
            {"type": "git", "id": "lost", "dirName": "lost", "enabled": True},
        ],
        "pipPackages": {"idna": "3.7", "y": f"git+https://x.org/y@{COMMIT}"},
        "pythonVersion": "3.12.7",
        **changes,
    }


def test_a_snapshot_of_desktop_is_read(tmp_path: Path) -> None:
    release = read(tmp_path, a_desktop_snapshot())
    assert release.comfyui is not None
    assert (release.comfyui.ref, release.python) == (COMMIT, "3.12")
    assert [(node.repo, node.ref, node.name) for node in release.nodes] == [
        ("registry://pack", "1.0.0", "Pack"),
        ("https://x.org/g", COMMIT, "g"),
    ]
    assert release.installed == ("idna==3.7", f"y @ git+https://x.org/y@{COMMIT}")
    assert release.node_files == ("a.py",)
    assert [part.names[0] for part in release.unpinnable] == ["lost"]


@pytest.mark.parametrize("version", [1, 2])
def test_the_newest_snapshot_of_an_export_of_desktop_counts(version: int, tmp_path: Path) -> None:
    old = a_desktop_snapshot(createdAt="2026-01-01T00:00:00.000Z", pythonVersion="3.10.1", version=version)
    new = a_desktop_snapshot(version=version)
    export = {"type": "comfyui-desktop-2-snapshot", "version": version, "snapshots": [new, old]}
    release = read(tmp_path, export)
    assert release.python == "3.12"
    assert "it holds 2 snapshots, and the newest is taken (2026-02-01T00:00:00.000Z)" in release.notes


def test_a_release_of_desktop_without_a_commit_is_its_tag(tmp_path: Path) -> None:
    release = read(tmp_path, a_desktop_snapshot(comfyui={"baseTag": "0.30.2", "commit": None, "commitsAhead": 3}))
    assert release.comfyui is not None
    assert release.comfyui.ref == "v0.30.2"
    assert any("3 commits after" in note for note in release.notes)


def test_packages_that_desktop_does_not_sync_are_resolved(tmp_path: Path) -> None:
    release = read(tmp_path, a_desktop_snapshot(skipPipSync=True))
    assert release.installed == ()
    assert any("resolved anew" in note for note in release.notes)


def a_comfy_pack_snapshot(**changes: object) -> dict[str, object]:
    return {
        "python": "3.11",
        "comfyui": COMMIT,
        "models": [
            {
                "filename": "models/vae/a.safetensors",
                "size": 7,
                "disabled": False,
                "sha256": SHA256,
                "source": {"download_url": "https://x.org/a (1).safetensors", "source": "huggingface"},
            },
            {"filename": "models/loras/lost.safetensors", "sha256": SHA256, "source": {}},
            {"filename": "models/loras/off.safetensors", "disabled": True, "source": {}},
        ],
        "custom_nodes": [
            {"url": "https://x.org/o/one.git", "commit_hash": COMMIT, "disabled": False},
            {"url": "https://x.org/o/two.git", "commit_hash": COMMIT, "disabled": True},
            {"url": "", "commit_hash": COMMIT},
        ],
        "pips": {"idna==3.7": ""},
        **changes,
    }


def test_a_snapshot_of_comfy_pack_is_read(tmp_path: Path) -> None:
    release = read(tmp_path, a_comfy_pack_snapshot())
    assert release.kind == "a snapshot of comfy-pack"
    assert (release.python, release.installed) == ("3.11", ("idna==3.7",))
    assert [node.repo for node in release.nodes] == ["https://x.org/o/one.git"]
    (model,) = release.models
    assert (model.target, model.sha256, model.size_bytes) == ("vae/a.safetensors", Digest(SHA256), 7)
    assert model.sources == ("https://x.org/a%20(1).safetensors",)
    assert [part.names[-1] for part in release.unpinnable] == ["custom_nodes[2]", "lost.safetensors"]


def test_a_pack_of_comfy_pack_is_read_with_its_requirements(tmp_path: Path) -> None:
    path = tmp_path / "x.cpack.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("snapshot.json", json.dumps(a_comfy_pack_snapshot(pips={})))
        archive.writestr("requirements.txt", "# frozen\nidna==3.7\n")
    assert read_release_file(path).installed == ("idna==3.7",)


def test_a_zip_without_a_snapshot_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "")
    with pytest.raises(SnapshotUnreadable):
        read_release_file(path)


def test_the_node_list_of_cog_is_read_and_the_last_of_two_entries_counts(tmp_path: Path) -> None:
    entries = [
        {"repo": "https://x.org/o/one", "commit": "0123456"},
        {"repo": "https://x.org/o/two", "commit": "7654321", "notes": ["x"]},
        {"repo": "https://x.org/fork/one", "commit": "abcdef0"},
        {"repo": "https://x.org/o/three"},
    ]
    release = read(tmp_path, entries)
    assert release.comfyui is None
    assert [(node.repo, node.ref) for node in release.nodes] == [
        ("https://x.org/o/two", "7654321"),
        ("https://x.org/fork/one", "abcdef0"),
    ]
    assert release.notes == ("one is there twice, at 0123456 and abcdef0; the last one counts",)
    assert [part.names[-1] for part in release.unpinnable] == ["three"]


def test_a_model_list_says_where_its_models_go(tmp_path: Path) -> None:
    def a_model(save_path: str, kind: str, filename: str = "a.pth") -> dict[str, str]:
        return {"name": kind, "type": kind, "save_path": save_path, "filename": filename, "url": "https://x.org/a"}

    models = [
        a_model("vae_approx", "TAESD"),
        a_model("default", "lora"),
        a_model("custom_nodes/X/models", "x"),
        a_model("models/loras/sd", "y"),
        a_model("default", "strange"),
        a_model("LLM", "z", "<huggingface>"),
    ]
    release = read(tmp_path, {"models": models})
    assert [model.target for model in release.models] == [
        "vae_approx/a.pth",
        "loras/a.pth",
        "$COMFY_HOME/custom_nodes/X/models/a.pth",
        "loras/sd/a.pth",
    ]
    assert [part.kind for part in release.unpinnable] == ["model", "model"]


def a_build(**changes: object) -> dict[str, object]:
    definition = {
        "schema": "distribution-definition/0",
        "baseComfyVersion": "0.3.40",
        "models": [
            {"type": "vae", "filename": "a.safetensors", "sourceUri": "https://x.org/a", "sha256": SHA256},
            {"type": "loras", "filename": "mine.safetensors", "source": "local", "localPath": "loras/mine.safetensors"},
        ],
        "customNodes": [
            {"name": "Pack", "id": "pack", "registryVersion": "1.0.0"},
            {"name": "one", "repository": "https://github.com/o/one", "gitRef": COMMIT},
            {"name": "here", "source": "local", "localPath": "."},
        ],
        "pipDependencies": "# freeze\nidna==3.7\nrequests==2.32.0\n",
        "environment": {"pythonVersion": "3.12.7"},
        **changes,
    }
    return {"schema": "comfy-build/1", "name": "x", "description": "", "definition": definition}


def test_a_build_of_comfy_cli_is_read(tmp_path: Path) -> None:
    release = read(tmp_path, a_build())
    assert release.comfyui is not None
    assert (release.comfyui.ref, release.python) == ("v0.3.40", "3.12")
    assert [(node.repo, node.ref, node.name) for node in release.nodes] == [
        ("registry://pack", "1.0.0", "Pack"),
        ("https://github.com/o/one", COMMIT, "one"),
    ]
    assert [(model.target, model.sha256) for model in release.models] == [("vae/a.safetensors", Digest(SHA256))]
    assert [part.names[0] for part in release.unpinnable] == ["here", "mine.safetensors"]
    assert release.installed == ("idna==3.7", "requests==2.32.0")


def test_requirements_of_a_build_that_are_no_freeze_are_resolved(tmp_path: Path) -> None:
    release = read(tmp_path, a_build(pipDependencies="idna>=3\n--extra-index-url https://x.org/simple\n"))
    assert (release.installed, release.requirements) == ((), ("idna>=3",))
    assert "not obeyed: --extra-index-url https://x.org/simple" in release.notes
