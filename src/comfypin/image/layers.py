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
from comfypin.image.container_user import OWN_USER
from comfypin.lock.torch import is_torch_family

BUILD_FOLDER = "image"


def split_env(home: Home, layers_folder: Path, *, owner_id: int | None = OWN_USER) -> None:
    """Move the current env of a home into layers. Raises `NothingRealized` if there is none."""
    receipt = read_receipt(home.current_link)
    if receipt is None:
        raise NothingRealized(home=home.root)
    build_folder = home.build_folder(receipt.key).resolve()
    # Before files move: compiling needs the env in one piece.
    _add_bytecode(build_folder, layers_folder)
    build_path = Path(str(home.builds_folder / BUILD_FOLDER).lstrip("/"))
    torch_files = sorted(_find_torch_files(build_folder))
    for relative_path in torch_files:
        _move_path(build_folder / relative_path, layers_folder / "torch" / build_path / relative_path)
    _remove_empty_folders(site_packages(build_folder))
    _move_path(build_folder / VENV_FOLDER, layers_folder / "packages" / build_path / VENV_FOLDER)
    for node_folder in sorted((build_folder / CUSTOM_NODES_FOLDER).iterdir()):
        if node_folder.is_dir() and node_folder.name in {source_pin.folder for source_pin in receipt.nodes}:
            _move_path(node_folder, layers_folder / "nodes" / build_path / CUSTOM_NODES_FOLDER / node_folder.name)
    _move_path(build_folder / COMFYUI_FOLDER, layers_folder / "comfyui" / build_path / COMFYUI_FOLDER)
    for file_name in (RECEIPT_FILE, MANIFEST_FILE):
        _move_path(build_folder / file_name, layers_folder / "receipt" / build_path / file_name)
    image_root = layers_folder / "receipt" / str(home.root).lstrip("/")
    # comfypin looks for a build by its key.
    (image_root / "builds" / receipt.key).symlink_to(BUILD_FOLDER)
    for home_link in (home.current_link, home.root / COMFYUI_FOLDER, home.root / VENV_FOLDER):
        (image_root / home_link.name).symlink_to(home_link.readlink())
    shutil.copyfile(home.lock_copy, image_root / home.lock_copy.name)
    if owner_id is not None:
        for layer_name in ("torch", "packages", "comfyui", "nodes", "receipt"):
            _change_owner(layers_folder / layer_name / str(home.root).lstrip("/"), owner_id)


def _add_bytecode(build_folder: Path, layers_folder: Path) -> None:
    temporary_folder = layers_folder / "bytecode"
    temporary_folder.mkdir(parents=True)
    for relative_path, compiled_path in compile_modules(build_folder, temporary_folder).items():
        _move_path(compiled_path, build_folder / relative_path)
    shutil.rmtree(temporary_folder)


def _find_torch_files(build_folder: Path) -> Iterator[Path]:
    """Yield the files of torch and its companions, by their RECORDs, with their byte-code; relative to the build."""
    site_folder = site_packages(build_folder)
    for record in read_records(site_folder):
        if not is_torch_family(record.folder.removesuffix(".dist-info").rpartition("-")[0]):
            continue
        # RECORDs name scripts as `../../../bin/x`.
        recorded_files = {Path(os.path.normpath(site_folder / record_path)) for record_path in record.files}
        cached_files = {
            bytecode_path
            for file_path in recorded_files
            if file_path.suffix == ".py"
            for bytecode_path in _find_bytecode(file_path)
        }
        for file_path in {*recorded_files, *cached_files, *(site_folder / record.folder).iterdir()}:
            if file_path.is_file() and file_path.is_relative_to(build_folder):
                yield file_path.relative_to(build_folder)


def _find_bytecode(source_path: Path) -> Iterator[Path]:
    return (source_path.parent / "__pycache__").glob(f"{source_path.stem}.*.pyc")


def _move_path(source_path: Path, target_path: Path) -> None:
    """Move a path, replacing a file that compiling left there before."""
    if not source_path.exists():
        return
    target_path.parent.mkdir(parents=True, exist_ok=True)
    target_path.unlink(missing_ok=True)
    shutil.move(source_path, target_path)


def _remove_empty_folders(top_folder: Path) -> None:
    """Remove empty folders: those of torch would change the layer of the other packages with every torch."""
    for parent_folder, _, _ in os.walk(top_folder, topdown=False):
        if parent_folder != str(top_folder) and not any(Path(parent_folder).iterdir()):
            Path(parent_folder).rmdir()


def _change_owner(top_folder: Path, owner_id: int) -> None:
    if not top_folder.is_dir():
        return
    os.chown(top_folder, owner_id, owner_id)
    for parent_folder, subfolders, file_names in os.walk(top_folder):
        for file_name in (*subfolders, *file_names):
            os.chown(Path(parent_folder, file_name), owner_id, owner_id, follow_symlinks=False)


if __name__ == "__main__":
    split_env(Home(root=Path(sys.argv[1])), Path(sys.argv[2]))
