"""Libraries of the system that wheels need, read from wheels on a server in parts."""

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.lock.model import PackagePin, PythonPins
from comfypin.locking.system_libraries import accept_proposals, find_libraries, library_notes, note_libraries
from comfypin.locking.wheel_contents import WheelReader
from tests.support.elf_files import elf_file
from tests.support.package_index import package_index

LINUX = "cp311-cp311-manylinux_2_17_x86_64"


def silent(_: str) -> None:
    """Nobody listens."""


def native_wheel(folder: Path, name: str, files: dict[str, bytes], tag: str = LINUX) -> PackagePin:
    path = folder / f"{name}-1.0-{tag}.whl"
    record = f"{name}-1.0.dist-info/RECORD"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file, data in files.items():
            wheel.writestr(file, data)
        wheel.writestr(record, "".join(f"{file},sha256=AA,1\n" for file in files))
    return PackagePin(name=name, version="1.0", url=path.as_uri(), sha256=(Digest.of_file(path),))


def test_a_module_its_bundled_libraries_and_what_they_need(tmp_path: Path) -> None:
    files = {
        "cv2/cv2.abi3.so": elf_file(["libQt-1a.so.5", "libc.so.6", "libgthread-2.0.so.0"]),
        "cv.libs/libQt-1a.so.5": elf_file(["libGL.so.1", "libstdc++.so.6"], names_at_end=True),
        "cv2/plugins/libqxcb.so": elf_file(["libX11.so.6"]),
        "cv2/script.so": b"a text",
    }
    pin = native_wheel(tmp_path, "cv", files)
    assert find_libraries([pin], WheelReader(), silent) == {"libGL.so.1": ("cv",), "libgthread-2.0.so.0": ("cv",)}


def test_what_another_package_brings_is_not_of_the_system(tmp_path: Path) -> None:
    one = native_wheel(tmp_path, "one", {"one.abi3.so": elf_file(["libtwo.so.2"])})
    two = native_wheel(tmp_path, "two", {"two/lib/libtwo.so.2": elf_file(["libc.so.6"])})
    assert find_libraries([one, two], WheelReader(), silent) == {}
    assert find_libraries([one], WheelReader(), silent) == {"libtwo.so.2": ("one",)}


def test_of_libraries_for_many_machines_only_known_ones_count(tmp_path: Path) -> None:
    files = {"bits/libcuda11.so": elf_file(["libcublas.so.11"]), "bits/libcore.so": elf_file(["libavutil.so.59"])}
    assert find_libraries([native_wheel(tmp_path, "bits", files)], WheelReader(), silent) == {
        "libavutil.so.59": ("bits",)
    }


@pytest.mark.parametrize("tag", ["py3-none-any", "cp311-cp311-macosx_11_0_arm64"])
def test_only_wheels_for_linux_are_read(tmp_path: Path, tag: str) -> None:
    pin = native_wheel(tmp_path, "mac", {"mac.abi3.so": elf_file(["libGL.so.1"])}, tag=tag)
    assert note_libraries(PythonPins(packages=(pin,)), WheelReader(), silent).libraries == {}


def test_a_wheel_on_a_server_is_read_once(tmp_path: Path) -> None:
    pin = native_wheel(tmp_path, "cv", {"cv2/cv2.abi3.so": elf_file(["libGL.so.1"])})
    with package_index(tmp_path) as server:
        remote = replace(pin, url=f"{server.url}/files/{str(pin.url).rpartition('/')[2]}")
        reader = WheelReader(notes_folder=tmp_path / "notes")
        first = find_libraries([remote], reader, silent)
        asked = len(server.requests)
        assert find_libraries([remote], reader, silent) == first == {"libGL.so.1": ("cv",)}
        assert len(server.requests) == asked


def test_the_note_says_what_to_type_and_for_whom() -> None:
    (proposed, unknown) = library_notes({"libGL.so.1": ("cv",), "libodd.so.1": ("odd",)}, ())
    assert "libgl1 for cv" in proposed
    assert "--system-package libgl1" in proposed
    assert "libodd.so.1 for odd" in unknown
    assert library_notes({"libGL.so.1": ("cv",)}, ["libgl1"]) == []


def test_auto_is_all_that_is_proposed() -> None:
    libraries = {"libGL.so.1": ("cv",), "libavcodec.so.61": ("codec",)}
    assert accept_proposals(("git", "auto"), libraries) == ("git", "ffmpeg", "libgl1")
    assert accept_proposals(("git",), libraries) == ("git",)
