"""Receipts of baked models: a container that has the layer, with inodes of its own, knows their digests."""

import os
import subprocess
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.image.build_context import FIXED_TIME_S
from comfypin.image.model_receipts import write_receipts
from comfypin.models.errors import ModelDiffers
from comfypin.models.store import BlobStore

MODEL = b"weights" * 100


def put_blob(root: Path) -> Digest:
    """Put a verified blob into a store, as a pull does."""
    digest = Digest.of(MODEL)
    file_path = root.parent / "file"
    file_path.parent.mkdir(parents=True, exist_ok=True)
    file_path.write_bytes(MODEL)
    BlobStore(root).adopt_file(file_path, digest)
    return digest


def test_a_copy_of_the_layer_is_known_without_the_notes_of_the_build(tmp_path: Path) -> None:
    built, unpacked = tmp_path / "build" / "store", tmp_path / "container"
    digest = put_blob(built)
    write_receipts(built)
    (built / "verified").unlink()
    subprocess.run(["cp", "-a", built, unpacked], check=True)
    store = BlobStore(unpacked)
    assert store.blob_path(digest).stat().st_mtime == FIXED_TIME_S
    assert store.has_blob(digest)
    store.blob_path(digest).write_bytes(MODEL[::-1])
    assert not BlobStore(unpacked).has_blob(digest)


def test_a_blob_that_was_not_verified_gets_no_receipt(tmp_path: Path) -> None:
    digest = put_blob(tmp_path / "store")
    blob_path = BlobStore(tmp_path / "store").blob_path(digest)
    os.utime(blob_path, (1, 1))
    with pytest.raises(ModelDiffers, match="was not verified"):
        write_receipts(tmp_path / "store")
