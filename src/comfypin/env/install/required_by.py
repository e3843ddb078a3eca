"""Says which sources of a build ask for a package, by their requirement files."""

from pathlib import Path

from comfypin.env.layout import COMFYUI_FOLDER, CUSTOM_NODES_FOLDER
from comfypin.lock.requirements import (
    RequirementLine,
    decode_requirements,
    normalize_package_name,
    read_requirements,
)


def who_requires(build_folder: Path, package_name: str) -> tuple[str, ...]:
    """Return "ComfyUI wants x>=1" and the like; nothing if only another package asks for it."""
    name = normalize_package_name(package_name)
    comfyui_folder = build_folder / COMFYUI_FOLDER
    node_folders = sorted(path for path in (build_folder / CUSTOM_NODES_FOLDER).glob("*") if path.is_dir())
    return tuple(
        str(requirement)
        for folder in (comfyui_folder, *node_folders)
        for requirement in _read(folder, "ComfyUI" if folder == comfyui_folder else f"the node {folder.name}")
        if requirement.name == name
    )


def _read(folder: Path, origin: str) -> tuple[RequirementLine, ...]:
    def read_text(file_name: str) -> str | None:
        path = folder / file_name
        return decode_requirements(path.read_bytes()) if path.is_file() else None

    if read_text("requirements.txt") is None:
        return ()
    return read_requirements("requirements.txt", origin=origin, read=read_text).requirements
