"""Every file of a build by sha256, and what its packages' RECORDs say of them."""

import hashlib
from pathlib import Path

import pytest

from comfypin.env.file_manifest import (
    FileChanges,
    FileFact,
    FileManifest,
    compare_manifests,
    find_record_mismatches,
    hash_files,
    read_records,
)
from tests.support.releases import make_wheel

SITE = "venv/lib/python3.12/site-packages"


@pytest.fixture
def build(tmp_path: Path) -> Path:
    files = {
        "ComfyUI/main.py": "main",
        "ComfyUI/user/settings.json": "{}",
        "ComfyUI/output/a.png": "x",
        "ComfyUI/__pycache__/main.cpython-312.pyc": "x",
        "ComfyUI/custom_nodes/n/output/kept.py": "n",
        "venv/bin/python3": "x",
        "venv/pyvenv.cfg": "home = /usr",
        "receipt.json": "{}",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "venv/lib64").symlink_to("lib")
    return tmp_path


def test_what_belongs_to_the_lock_is_listed_and_nothing_else(build: Path) -> None:
    found = hash_files(build)
    assert set(found.files) == {"ComfyUI/main.py", "ComfyUI/custom_nodes/n/output/kept.py"}
    assert dict(found.links) == {"venv/lib64": "lib"}
    assert found.files["ComfyUI/main.py"] == FileFact(4, hashlib.sha256(b"main").hexdigest())


def test_large_files_are_hashed_too(build: Path) -> None:
    data = bytes(range(256)) * 8192 * 2
    (build / "ComfyUI/big").write_bytes(data)
    assert hash_files(build).files["ComfyUI/big"] == FileFact(len(data), hashlib.sha256(data).hexdigest())


def test_a_manifest_survives_its_encoding(build: Path) -> None:
    found = hash_files(build)
    assert FileManifest.from_bytes(found.canonical_bytes) == found


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"files": {"a": [1]}, "links": {}}', b'{"files": [], "links": 1}']
)
def test_anything_else_is_no_manifest(data: bytes) -> None:
    with pytest.raises(ValueError):
        FileManifest.from_bytes(data)


def test_differences_are_edited_missing_and_added() -> None:
    one, two = FileFact(1, "1" * 64), FileFact(1, "2" * 64)
    wanted = FileManifest(files={"same": one, "edited": one, "gone": one, "now-a-link": one}, links={"l": "a"})
    found = FileManifest(files={"same": one, "edited": two, "new": one}, links={"l": "b", "now-a-link": "x"})
    assert compare_manifests(wanted, found) == FileChanges(
        edited=("edited", "l", "now-a-link"), missing=("gone",), added=("new",)
    )


def test_an_executable_bit_is_a_difference() -> None:
    wanted = FileManifest(files={"a": FileFact(1, "1" * 64)})
    assert compare_manifests(wanted, FileManifest(files={"a": FileFact(1, "1" * 64, executable=True)})).edited == ("a",)


def test_a_file_that_is_not_what_its_record_says_is_found(tmp_path: Path) -> None:
    import zipfile

    make_wheel(tmp_path, "alpha", "1.0", {"alpha/__init__.py": "VALUE = 1\n", "alpha/more.py": ""})
    site = tmp_path / "build" / SITE
    with zipfile.ZipFile(tmp_path / "alpha-1.0-py3-none-any.whl") as wheel:
        wheel.extractall(site)
    records = read_records(site)
    assert find_record_mismatches(records, SITE, hash_files(tmp_path / "build")) == {}
    (site / "alpha/more.py").write_text("# edited through a hard link\n")
    assert find_record_mismatches(records, SITE, hash_files(tmp_path / "build")) == {
        "alpha-1.0.dist-info": ["alpha/more.py"]
    }
