"""Schemas 1 and 2, as they exist in the field."""

import json
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.lock.check import check_lock
from comfypin.lock.codec import ReadLock, parse_lock, read_lock, render_lock
from comfypin.lock.errors import LockInvalid

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA = "ab" * 32


def reading(document: dict[str, object]) -> ReadLock:
    return parse_lock(json.dumps(document).encode(), where="a lock", default_name="from-file")


def test_schema_1_is_read_without_what_belongs_to_its_machine() -> None:
    document = {
        "schema_version": 1,
        "version_name": "wan2.2",
        "comfyui": {"repo": "https://x.org/ComfyUI.git", "commit": COMMIT, "path": "/Users/me/ComfyUI"},
        "custom_nodes": [{"name": "N", "repo": None, "commit": None, "path": "/Users/me/N"}],
        "python": {
            "version": "3.11.9",
            "interpreter": "/Users/me/.venv/bin/python",
            "packages": [
                {"name": "accelerate", "version": "1.10.1", "url": None},
                {
                    "name": "flash",
                    "version": None,
                    "url": "https://x.org/flash-2.1%2Bcu128-cp312-cp312-linux_x86_64.whl",
                },
                {"name": "loose", "version": None, "url": None},
            ],
        },
        "models": [
            {"name": "a", "source": "hf://o/r/a.bin", "target_path": "$MODELS_DIR/a.bin", "checksum": SHA.upper()},
            {"name": "b", "source": None, "path": "b.bin", "checksum": "md5:" + "00" * 16},
        ],
    }
    result = reading(document)
    lock = result.lock
    assert result.warnings == ()
    assert b"/Users/me" not in render_lock(lock)
    assert [(pin.name, pin.version) for pin in lock.python.packages] == [
        ("accelerate", "1.10.1"),
        ("flash", "2.1+cu128"),
    ]
    assert lock.python.requirements == ("loose",)
    assert lock.models[0].sha256 == Digest(SHA)
    assert lock.models[1].target_path == "$MODELS_DIR/b.bin"
    assert lock.models[1].extra == {"checksum": "md5:" + "00" * 16}


def test_a_lock_of_models_alone_takes_its_name_from_the_file() -> None:
    lock = reading({"models": [{"name": "dummy", "source": None, "target_path": "$MODELS_DIR/d.bin"}]}).lock
    assert (lock.version_name, lock.read_from_schema, lock.comfyui) == ("from-file", 1, None)


def test_schema_2_is_read() -> None:
    document = {
        "schema_version": 2,
        "id": "wan22-fast",
        "comfy": {"repo": "https://x.org/ComfyUI", "ref": "master"},
        "custom_nodes": [
            {"repo": "https://x.org/Pack.git", "commit": "main", "target_dir": "$COMFY_HOME/custom_nodes/P"},
            {"name": "plain", "repo": "git@x.org:o/plain.git", "install_requirements": False},
        ],
        "models": [
            {"source": "https://x.org/m/v.safetensors?download=true", "target_subdir": "vae", "source_spec": {"a": 1}},
            {"source": "civitai://1", "name": "n.safetensors", "checksum": f"sha256:{SHA}"},
        ],
        "python_packages": ["--force-reinstall", "sageattention"],
        "env": {"COMFY_PYTHON": "python3.11", "OTHER": "1"},
        "options": {"offline": True, "fast": True},
    }
    result = reading(document)
    lock = result.lock
    assert (lock.version_name, lock.python.version, dict(lock.engine.env)) == ("wan22-fast", "3.11", {"OTHER": "1"})
    assert [node.folder for node in lock.custom_nodes] == ["P", "plain"]
    assert [model.target_path for model in lock.models] == [
        "$MODELS_DIR/vae/v.safetensors",
        "$MODELS_DIR/n.safetensors",
    ]
    assert lock.models[1].sha256 == Digest(SHA)
    assert lock.python.requirements == ("sageattention",)
    assert [warning.path for warning in result.warnings] == [
        "$.python_packages[0]",
        "$.options.offline",
        "$.options.fast",
        "$.custom_nodes[1].install_requirements",
    ]
    assert json.loads(render_lock(lock))["options"] == {"fast": True}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"models": [{}]}, "$.models[0].source"),
        ({"custom_nodes": [{"name": "x"}]}, "$.custom_nodes[0].repo"),
        ({"comfy": {}}, "$.comfy.repo"),
        ({"version_id": None}, "$.version_id"),
        (
            {"custom_nodes": [{"repo": "https://x.org/a", "target_dir": "$COMFY_HOME/../a"}]},
            "$.custom_nodes[0].target_dir",
        ),
        ({"custom_nodes": [{"repo": "https://x.org/a", "sha256": SHA}]}, "$.custom_nodes[0].sha256"),
        ({"engine": {}}, "$.engine"),
    ],
)
def test_what_schema_2_requires_or_cannot_hold_is_said(change: dict[str, object], path: str) -> None:
    with pytest.raises(LockInvalid) as caught:
        reading({"schema_version": 2, "version_id": "x", "comfy": {"repo": "https://x.org/c"}, **change})
    assert [finding.path for finding in caught.value.findings] == [path]


def test_every_real_lock_is_read_and_survives_a_rewrite(field_locks: Path) -> None:
    paths = sorted((field_locks / "real").glob("*.json"))
    assert paths
    for path in paths:
        lock = read_lock(path).lock
        again = parse_lock(render_lock(lock), where=path.name) if not _claims_twice(path) else None
        assert again is None or render_lock(again.lock) == render_lock(lock)


def _claims_twice(path: Path) -> bool:
    return any(finding.rule == "claimed-twice" for finding in check_lock(read_lock(path).lock))


def test_real_locks_that_are_invalid_are_refused_by_path(field_locks: Path) -> None:
    with pytest.raises(LockInvalid) as caught:
        read_lock(field_locks / "real-but-invalid" / "v2-vibe-voice.json")
    assert [finding.path for finding in caught.value.findings] == ["$.models[0].source"]


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("v1-comfy-wan2.2.json", {"commit-not-pinned", "package-without-hash", "no-checksum", "no-size"}),
        ("v2-wan22_s2v.json", {"commit-not-pinned", "no-packages", "no-python-version", "no-checksum", "no-size"}),
        ("v1-comfy-local.json", {"no-packages"}),
    ],
)
def test_what_real_locks_do_not_pin_is_said(field_locks: Path, name: str, rules: set[str]) -> None:
    assert {finding.rule for finding in check_lock(read_lock(field_locks / "real" / name).lock)} == rules
