"""The file that tells ComfyUI where models are."""

from pathlib import Path

import pytest

from comfypin.atomic_files import list_leftovers
from comfypin.digest import Digest
from comfypin.env.model_paths import MODEL_PATHS_FILE, are_model_paths_current, write_model_paths
from comfypin.env.receipt import Receipt, SourcePin
from comfypin.lock.model import Lock

LOCK = Lock(version_name="demo")
RECEIPT = Receipt(
    env_digest=Digest.of(b"env"),
    key="env",
    target=None,
    python="3.12",
    platform="cpython-312-linux-x86_64",
    comfyui=SourcePin(folder="ComfyUI", repo="https://example.org/ComfyUI", commit="0" * 40),
    nodes=(),
    packages={},
    manifest=Digest.of(b"manifest"),
    files=0,
    size_bytes=0,
)


@pytest.fixture
def build_folder(tmp_path: Path) -> Path:
    (tmp_path / "ComfyUI").mkdir()
    return tmp_path


def test_what_a_killed_write_left_goes_with_the_next_one(build_folder: Path) -> None:
    yaml_path = build_folder / "ComfyUI" / MODEL_PATHS_FILE
    write_model_paths(build_folder, RECEIPT, LOCK, build_folder / "models")
    leftover = yaml_path.with_name(f".{MODEL_PATHS_FILE}.0123456789ab.tmp")
    leftover.write_bytes(b"half a fi")
    assert list_leftovers(yaml_path) == [leftover]
    assert not are_model_paths_current(build_folder, RECEIPT, LOCK, build_folder / "models")
    write_model_paths(build_folder, RECEIPT, LOCK, build_folder / "models")
    assert are_model_paths_current(build_folder, RECEIPT, LOCK, build_folder / "models")
    assert [path.name for path in yaml_path.parent.iterdir()] == [MODEL_PATHS_FILE]


def test_a_file_that_only_looks_like_a_leftover_stays(build_folder: Path) -> None:
    write_model_paths(build_folder, RECEIPT, LOCK, build_folder / "models")
    own_file = build_folder / "ComfyUI" / f".{MODEL_PATHS_FILE}.mine.tmp"
    own_file.write_bytes(b"a user's")
    write_model_paths(build_folder, RECEIPT, LOCK, build_folder / "models")
    assert own_file.exists()


def test_an_unchanged_file_is_not_written_again(build_folder: Path) -> None:
    write_model_paths(build_folder, RECEIPT, LOCK, build_folder / "models")
    before = (build_folder / "ComfyUI" / MODEL_PATHS_FILE).stat()
    write_model_paths(build_folder, RECEIPT, LOCK, build_folder / "models")
    after = (build_folder / "ComfyUI" / MODEL_PATHS_FILE).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
