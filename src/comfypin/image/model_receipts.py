"""Writes receipts for the models of an image's layer, so that no container hashes them; runs inside a build.

`python -m comfypin.image.model_receipts STORE` gives each verified blob of a store the time that files in layers have,
and notes its digest beside it.
"""

import os
import sys
from pathlib import Path

from comfypin.digest_cache import write_receipt
from comfypin.image.build_context import FIXED_TIME_S
from comfypin.models.errors import ModelDiffers
from comfypin.models.store import RECEIPTS_FOLDER, BlobStore


def write_receipts(store_root: Path) -> None:
    """Write a receipt for each blob. Raises `ModelDiffers` for one that nobody has verified."""
    store = BlobStore(store_root)
    for digest, blob_path in list(store.list_blobs()):
        if not store.has_blob(digest):
            raise ModelDiffers(name=blob_path.name, target=str(blob_path), reason="was not verified")
        os.utime(blob_path, (FIXED_TIME_S, FIXED_TIME_S))
        write_receipt(store_root / RECEIPTS_FOLDER, blob_path, digest, root=store_root)


if __name__ == "__main__":
    write_receipts(Path(sys.argv[1]))
