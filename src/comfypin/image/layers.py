"""Run inside a build: a realized env, taken apart into one folder a layer.

`python -m comfypin.image.layers HOME LAYERS` moves `HOME/current` into `torch`, `packages`, `comfyui`, `nodes` and
`receipt` under LAYERS, each laid out from the root. In the image the build lies in `builds/image`, whatever its key is,
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
from comfypin.env.layout import COMFYUI, CUSTOM_NODES, MANIFEST, RECEIPT, VENV, Home, site_packages
from comfypin.env.receipt import read_receipt
from comfypin.lock.torch import is_torch_family

FOLDER = "image"
OWNER = 1000


def lay_out(home: Home, layers: Path, *, owner: int | None = OWNER) -> None:
    """Move the current env of a home into layers. Raises `NothingRealized` where there is none."""
    receipt = read_receipt(home.current)
    if receipt is None:
        raise NothingRealized(home=home.root)
    build = home.build(receipt.key).resolve()
    _add_bytecode(build, layers)
    place = Path(str(home.builds / FOLDER).lstrip("/"))
    heavy = sorted(_heavy_files(build))
    for path in heavy:
        _move(build / path, layers / "torch" / place / path)
    _remove_empty_folders(site_packages(build))
    _move(build / VENV, layers / "packages" / place / VENV)
    for node in sorted((build / CUSTOM_NODES).iterdir()):
        if node.is_dir() and node.name in {source.folder for source in receipt.nodes}:
            _move(node, layers / "nodes" / place / CUSTOM_NODES / node.name)
    _move(build / COMFYUI, layers / "comfyui" / place / COMFYUI)
    for name in (RECEIPT, MANIFEST):
        _move(build / name, layers / "receipt" / place / name)
    root = layers / "receipt" / str(home.root).lstrip("/")
    (root / "builds" / receipt.key).symlink_to(FOLDER)
    for link in (home.current, home.root / COMFYUI, home.root / VENV):
        (root / link.name).symlink_to(link.readlink())
    shutil.copyfile(home.lock_copy, root / home.lock_copy.name)
    if owner is not None:
        for layer in ("torch", "packages", "comfyui", "nodes", "receipt"):
            _own(layers / layer / str(home.root).lstrip("/"), owner)


def _add_bytecode(build: Path, layers: Path) -> None:
    scratch = layers / "bytecode"
    scratch.mkdir(parents=True)
    for name, path in compile_modules(build, scratch).items():
        _move(path, build / name)
    shutil.rmtree(scratch)


def _heavy_files(build: Path) -> Iterator[Path]:
    """The files of torch and what comes with it, by their RECORDs, with their byte-code; relative to the build."""
    site = site_packages(build)
    for record in read_records(site):
        if not is_torch_family(record.folder.removesuffix(".dist-info").rpartition("-")[0]):
            continue
        named = {Path(os.path.normpath(site / row)) for row in record.files}
        cached = {code for path in named if path.suffix == ".py" for code in _bytecode_of(path)}
        for path in {*named, *cached, *(site / record.folder).iterdir()}:
            if path.is_file() and path.is_relative_to(build):
                yield path.relative_to(build)


def _bytecode_of(path: Path) -> Iterator[Path]:
    return (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")


def _move(source: Path, target: Path) -> None:
    """Move, replacing what compiling left there before."""
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.move(source, target)


def _remove_empty_folders(folder: Path) -> None:
    """Else what is left of torch's folders would change the layer of the other packages with every torch."""
    for parent, _, _ in os.walk(folder, topdown=False):
        if parent != str(folder) and not any(Path(parent).iterdir()):
            Path(parent).rmdir()


def _own(folder: Path, owner: int) -> None:
    if not folder.is_dir():
        return
    os.chown(folder, owner, owner)
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            os.chown(Path(parent, name), owner, owner, follow_symlinks=False)


if __name__ == "__main__":
    lay_out(Home(root=Path(sys.argv[1])), Path(sys.argv[2]))
