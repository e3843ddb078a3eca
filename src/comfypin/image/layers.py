"""Splits a realized env into one folder for each layer; runs inside a build.

`python -m comfypin.image.layers HOME LAYERS` moves `HOME/current` into `torch`, `packages`, `comfyui`, `nodes` and
`receipt` under LAYERS, each laid out from the root. In the image the build is always `builds/image`, whatever its key,
so that what two releases share has the same path in both; `builds/<key>` links to it.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from comfypin.env.bytecode import compile_modules
from comfypin.env.errors import NothingRealized
from comfypin.env.file_manifest import read_records
from comfypin.env.layout import (
    COMFYUI_FOLDER,
    CUSTOM_NODES_FOLDER,
    MANIFEST_FILE,
    RECEIPT_FILE,
    VENV_FOLDER,
    Home,
    site_packages,
)
from comfypin.env.receipt import read_receipt
from comfypin.lock.torch import of_torch

BUILD_FOLDER = "image"
# The image's own user; see container_user.py.
OWNER = 1000


def split_env(home: Home, layers: Path, *, owner: int | None = OWNER) -> None:
    """Move the current env of a home into layers. Raises `NothingRealized` if there is none."""
    receipt = read_receipt(home.current_link)
    if receipt is None:
        raise NothingRealized(home=home.root)
    build = home.build_folder(receipt.key).resolve()
    # Before files move: compiling needs the env in one piece.
    _add_bytecode(build, layers)
    place = Path(str(home.builds_folder / BUILD_FOLDER).lstrip("/"))
    heavy = sorted(_find_torch_files(build))
    for path in heavy:
        _move_path(build / path, layers / "torch" / place / path)
    _remove_empty_folders(site_packages(build))
    _move_path(build / VENV_FOLDER, layers / "packages" / place / VENV_FOLDER)
    for node in sorted((build / CUSTOM_NODES_FOLDER).iterdir()):
        if node.is_dir() and node.name in {source.folder for source in receipt.nodes}:
            _move_path(node, layers / "nodes" / place / CUSTOM_NODES_FOLDER / node.name)
    _move_path(build / COMFYUI_FOLDER, layers / "comfyui" / place / COMFYUI_FOLDER)
    for name in (RECEIPT_FILE, MANIFEST_FILE):
        _move_path(build / name, layers / "receipt" / place / name)
    root = layers / "receipt" / str(home.root).lstrip("/")
    # comfypin looks for a build by its key.
    (root / "builds" / receipt.key).symlink_to(BUILD_FOLDER)
    for link in (home.current_link, home.root / COMFYUI_FOLDER, home.root / VENV_FOLDER):
        (root / link.name).symlink_to(link.readlink())
    shutil.copyfile(home.lock_copy, root / home.lock_copy.name)
    if owner is not None:
        for layer in ("torch", "packages", "comfyui", "nodes", "receipt"):
            _change_owner(layers / layer / str(home.root).lstrip("/"), owner)


def _add_bytecode(build: Path, layers: Path) -> None:
    scratch = layers / "bytecode"
    scratch.mkdir(parents=True)
    for name, path in compile_modules(build, scratch).items():
        _move_path(path, build / name)
    shutil.rmtree(scratch)


def _find_torch_files(build: Path) -> Iterator[Path]:
    """Yield the files of torch and its companions, by their RECORDs, with their byte-code; relative to the build."""
    site = site_packages(build)
    for record in read_records(site):
        if not of_torch(record.folder.removesuffix(".dist-info").rpartition("-")[0]):
            continue
        # RECORDs name scripts as `../../../bin/x`.
        named = {Path(os.path.normpath(site / row)) for row in record.files}
        cached = {code for path in named if path.suffix == ".py" for code in _find_bytecode(path)}
        for path in {*named, *cached, *(site / record.folder).iterdir()}:
            if path.is_file() and path.is_relative_to(build):
                yield path.relative_to(build)


def _find_bytecode(path: Path) -> Iterator[Path]:
    return (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")


def _move_path(source: Path, target: Path) -> None:
    """Move a path, replacing a file that compiling left there before."""
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.move(source, target)


def _remove_empty_folders(folder: Path) -> None:
    """Remove empty folders: those of torch would change the layer of the other packages with every torch."""
    for parent, _, _ in os.walk(folder, topdown=False):
        if parent != str(folder) and not any(Path(parent).iterdir()):
            Path(parent).rmdir()


def _change_owner(folder: Path, owner: int) -> None:
    if not folder.is_dir():
        return
    os.chown(folder, owner, owner)
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            os.chown(Path(parent, name), owner, owner, follow_symlinks=False)


if __name__ == "__main__":
    split_env(Home(root=Path(sys.argv[1])), Path(sys.argv[2]))
