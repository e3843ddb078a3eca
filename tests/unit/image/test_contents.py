"""The list of what is in an image: everything that its file system holds, and nothing that it does not."""

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from comfypin.digest import Digest
from comfypin.image.contents import describe_image
from comfypin.lock.model import Lock, ModelPin, NodePin, PackagePin, PythonPins, RepoPin

LOCK = Lock(
    version_name="r",
    comfyui=RepoPin(repo="https://github.com/comfyanonymous/ComfyUI", commit="a" * 40),
    custom_nodes=(
        NodePin(name="here", repo="https://github.com/me/here", commit="b" * 40),
        NodePin(name="gone", repo="https://github.com/me/gone", commit="c" * 40),
    ),
    models=(
        ModelPin(name="baked", target_path="$MODELS_DIR/checkpoints/baked.safetensors", sha256=Digest.of(b"baked")),
        ModelPin(name="on a volume", target_path="$MODELS_DIR/loras/elsewhere.safetensors"),
    ),
    python=PythonPins(packages=(PackagePin(name="only-in-the-lock", version="9"),)),
    system_packages=("ffmpeg",),
)
DPKG = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10
Description: GNU C Library
 with a second line: and a colon

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: zlib1g
Status: install ok installed
Architecture: amd64
Version: 1:1.2.13.dfsg-1
"""


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def install(root: Path, folder: str, name: str, version: str) -> None:
    write(root / folder / f"{name}-{version}.dist-info" / "METADATA", f"Name: {name}\nVersion: {version}\n\nText\n")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write(tmp_path / "var/lib/dpkg/status", DPKG)
    write(tmp_path / "etc/os-release", 'NAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="12"\n')
    install(tmp_path, "opt/comfypin/lib/python3.12/site-packages", "comfypin", "1.2.3")
    install(tmp_path, "opt/comfypin/lib/python3.12/site-packages", "numpy", "2.3.0")
    install(tmp_path, "opt/comfy/builds/image/venv/lib/python3.12/site-packages", "numpy", "2.1.0")
    install(tmp_path, "usr/local/lib/python3.12/site-packages", "pip", "25.0")
    # What a package brings along inside itself is a part of it.
    install(tmp_path, "usr/local/lib/python3.12/site-packages/setuptools/_vendor/site-packages", "vendored", "1")
    write(tmp_path / "opt/comfy/builds/image/ComfyUI/main.py")
    write(tmp_path / "opt/comfy/builds/image/ComfyUI/custom_nodes/here/__init__.py")
    write(tmp_path / "opt/comfy/models/checkpoints/baked.safetensors")
    return tmp_path


def components(root: Path) -> dict[str, dict[str, Any]]:
    return {one["bom-ref"]: one for one in json.loads(describe_image(LOCK, root))["components"]}


def test_it_is_valid_cyclonedx(image: Path) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(describe_image(LOCK, image)) is None


def test_it_has_every_debian_package_that_is_installed(image: Path) -> None:
    purls = {one.get("purl") for one in components(image).values()}
    assert "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64" in purls
    assert "pkg:deb/debian/zlib1g@1%3A1.2.13.dfsg-1?arch=amd64" in purls
    assert not any("removed" in str(purl) for purl in purls)


def test_it_has_the_python_packages_of_every_python_with_their_places(image: Path) -> None:
    found = [one for one in components(image).values() if str(one.get("purl", "")).startswith("pkg:pypi/")]
    assert sorted((one["name"], one["version"], one["properties"][0]["value"]) for one in found) == [
        ("comfypin", "1.2.3", "/opt/comfypin/lib/python3.12/site-packages"),
        ("numpy", "2.1.0", "/opt/comfy/builds/image/venv/lib/python3.12/site-packages"),
        ("numpy", "2.3.0", "/opt/comfypin/lib/python3.12/site-packages"),
        ("pip", "25.0", "/usr/local/lib/python3.12/site-packages"),
    ]


def test_it_has_comfyui_and_nodes_and_models_that_are_there_and_no_others(image: Path) -> None:
    names = {one["name"] for one in components(image).values()}
    assert {"ComfyUI", "here", "baked"} <= names
    assert not names & {"gone", "on a volume", "only-in-the-lock", "ffmpeg"}


def test_the_same_image_has_the_same_list(image: Path) -> None:
    assert describe_image(LOCK, image) == describe_image(LOCK, image)


def test_another_package_is_another_document(image: Path) -> None:
    before = json.loads(describe_image(LOCK, image))["serialNumber"]
    install(image, "usr/local/lib/python3.12/site-packages", "wheel", "1.0")
    assert json.loads(describe_image(LOCK, image))["serialNumber"] != before
