"""Lists what is in an image, as CycloneDX; runs inside its build, as the last step, and sees what the image holds.

`python -m comfypin.image.contents LOCK OUTPUT` writes the list for the file system that it runs in: Debian packages,
Python packages wherever they are installed (comfypin's own, the env's, the base's), ComfyUI, nodes and models. A lock
alone could not tell: it knows neither the base image nor comfypin, and its models may lie on a volume.
"""

import email.parser
import json
import os
import platform
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from comfypin.digest import Digest, JsonValue, canonical_json
from comfypin.env.layout import COMFYUI_FOLDER, CUSTOM_NODES_FOLDER
from comfypin.lock.codec import read_lock
from comfypin.lock.export import export_lock
from comfypin.lock.model import Lock, PythonPins
from comfypin.models.target_paths import TargetRoots

Component = dict[str, JsonValue]
HOME = Path("opt/comfy")
# Where Pythons look for packages: those of images, of Debian, and comfypin's and the env's own.
_PYTHON_ROOTS = (Path("opt"), Path("usr/local/lib"), Path("usr/lib"), Path("home"), Path("root"))
_PACKAGE_FOLDERS = ("site-packages", "dist-packages")


def describe_image(lock: Lock, root: Path) -> str:
    """Return the CycloneDX list of everything below a root folder that has a name and a version."""
    components = [
        *_lock_components(lock, root),
        *_python_components(root),
        *_debian_components(root),
        _make_component("platform", "python", f"pkg:generic/python@{platform.python_version()}")
        | {"version": platform.python_version()},
    ]
    listed = sorted(
        {str(component["bom-ref"]): component for component in components}.values(),
        key=lambda component: str(component["bom-ref"]),
    )
    document = json.loads(export_lock(replace(lock, python=PythonPins(), models=()), "cyclonedx"))
    document["components"] = listed
    # Derived from the contents, so that the same image has the same list.
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, Digest.of(canonical_json(listed)).hex)}"
    return canonical_json(document).decode()


def _lock_components(lock: Lock, root: Path) -> Iterator[Component]:
    """Yield ComfyUI, the nodes and the models of the lock that are there."""
    build = root / HOME / "builds" / "image"
    places = TargetRoots(models_dir=root / HOME / "models", comfy_home=root / HOME)
    present = replace(
        lock,
        comfyui=lock.comfyui if (build / COMFYUI_FOLDER / "main.py").is_file() else None,
        custom_nodes=tuple(node for node in lock.custom_nodes if (build / CUSTOM_NODES_FOLDER / node.folder).is_dir()),
        models=tuple(model for model in lock.models if places.target_path(model).exists()),
        python=PythonPins(),
        system_packages=(),
    )
    yield from json.loads(export_lock(present, "cyclonedx"))["components"]


def _python_components(root: Path) -> Iterator[Component]:
    for metadata_path in _find_metadata(root):
        headers = email.parser.HeaderParser().parsestr(metadata_path.read_text(encoding="utf-8", errors="replace"))
        package_name, version = headers.get("Name"), headers.get("Version")
        if not package_name or not version:
            continue
        purl = f"pkg:pypi/{quote(package_name.lower().replace('_', '-'))}@{quote(version)}"
        folder = metadata_path.parent.parent.relative_to(root)
        # One package may be installed for several Pythons.
        component = _make_component("library", package_name, f"{purl}#/{folder}")
        properties: list[JsonValue] = [{"name": "comfypin:installed_in", "value": f"/{folder}"}]
        yield {**component, "purl": purl, "version": version, "properties": properties}


def _find_metadata(root: Path) -> Iterator[Path]:
    for python_root in _PYTHON_ROOTS:
        for folder, subfolders, _files in os.walk(root / python_root):
            # A venv links its builds from several places; the links are not followed.
            if Path(folder).name not in _PACKAGE_FOLDERS:
                continue
            for folder_name in sorted(subfolders):
                metadata = Path(folder, folder_name, "PKG-INFO" if folder_name.endswith(".egg-info") else "METADATA")
                if folder_name.endswith((".dist-info", ".egg-info")) and metadata.is_file():
                    yield metadata
            # What packages bring in folders of the same name is theirs.
            subfolders.clear()


def _debian_components(root: Path) -> Iterator[Component]:
    status_path = root / "var/lib/dpkg/status"
    if not status_path.is_file():
        return
    distribution = _distribution(root)
    for paragraph in status_path.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        fields = _read_fields(paragraph)
        if fields.get("Status") != "install ok installed":
            continue
        package_name, version, architecture = fields["Package"], fields["Version"], fields.get("Architecture", "all")
        # Epochs and tildes are part of a version, and reserved in addresses.
        purl = f"pkg:deb/{distribution}/{quote(package_name)}@{quote(version, safe='')}?arch={architecture}"
        yield {**_make_component("library", package_name, purl), "purl": purl, "version": version}


def _distribution(root: Path) -> str:
    try:
        release = (root / "etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return "debian"
    return next(
        (line.partition("=")[2].strip('"') for line in release.splitlines() if line.startswith("ID=")), "debian"
    )


def _read_fields(paragraph: str) -> Mapping[str, str]:
    lines = (line.partition(":") for line in paragraph.splitlines() if line[:1].strip())
    return {field_name: value.strip() for field_name, _, value in lines}


def _make_component(kind: str, component_name: str, reference: str) -> Component:
    return {"type": kind, "name": component_name, "bom-ref": reference}


if __name__ == "__main__":
    Path(sys.argv[2]).parent.mkdir(parents=True, exist_ok=True)
    Path(sys.argv[2]).write_text(describe_image(read_lock(Path(sys.argv[1])).lock, Path("/")), encoding="utf-8")
