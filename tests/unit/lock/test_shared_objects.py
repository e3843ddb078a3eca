"""Which libraries of the system a wheel needs, read from its ELF files."""

import io
from importlib.util import find_spec
from pathlib import Path

import pytest

from comfypin.lock.debian_packages import find_debian_package, is_in_every_image, propose_packages
from comfypin.lock.shared_objects import HEADS_BYTES, external_needs, is_shared_object, read_needs
from tests.support.elf_files import elf_file

MODULE = "cv2/cv2.abi3.so"


class CountedFile(io.BytesIO):
    """Says how much was read of it."""

    asked = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.asked += len(data)
        return data


@pytest.mark.parametrize("names_at_end", [False, True])
def test_the_needed_libraries_are_read(*, names_at_end: bool) -> None:
    data = elf_file(["libGL.so.1", "libc.so.6"], names_at_end=names_at_end)
    assert read_needs(io.BytesIO(data), len(data)) == {"libGL.so.1", "libc.so.6"}


def test_of_a_large_object_only_the_beginning_is_read() -> None:
    data = elf_file(["libGL.so.1", "libc.so.6"], filler_bytes=2 * HEADS_BYTES[-1])
    file = CountedFile(data)
    assert read_needs(file, len(data)) == {"libGL.so.1", "libc.so.6"}
    assert file.asked == HEADS_BYTES[0]


def test_of_a_large_object_that_patchelf_changed_all_is_read() -> None:
    data = elf_file(["libGL.so.1", "libc.so.6"], names_at_end=True, filler_bytes=2 * HEADS_BYTES[-1])
    assert read_needs(io.BytesIO(data), len(data)) == {"libGL.so.1", "libc.so.6"}


def test_names_that_go_on_beyond_what_was_read_are_read_too() -> None:
    symbols = [f"libsymbol{number}.so.1" for number in range(HEADS_BYTES[0] // 8)]
    data = elf_file(["libc.so.6", *symbols, "libGL.so.1"], filler_bytes=2 * HEADS_BYTES[-1])
    assert "libGL.so.1" in read_needs(io.BytesIO(data), len(data))


def test_a_real_module_needs_the_c_library() -> None:
    module = find_spec("numpy._core._multiarray_umath")
    assert module is not None
    data = Path(str(module.origin)).read_bytes()
    needed = read_needs(io.BytesIO(data), len(data))
    assert "libc.so.6" in needed
    assert all(is_shared_object(name) for name in needed)


@pytest.mark.parametrize("cut", [4, 60, 70, 200])
def test_what_is_no_whole_object_is_a_value_error(cut: int) -> None:
    data = elf_file(["libGL.so.1"])[:cut]
    with pytest.raises(ValueError):
        read_needs(io.BytesIO(data), len(data))


def test_a_text_is_a_value_error() -> None:
    data = b"INPUT(libx.so.1)\n"
    with pytest.raises(ValueError, match="not an ELF file"):
        read_needs(io.BytesIO(data), len(data))


def test_what_a_bundled_library_needs_is_needed() -> None:
    wheel = {MODULE: ["libQt5-12.so.5", "libc.so.6"], "opencv.libs/libQt5-12.so.5": ["libGL.so.1"]}
    assert external_needs(wheel, frozenset()) == {"libGL.so.1", "libc.so.6"}


def test_what_another_wheel_brings_is_not_needed() -> None:
    assert external_needs({MODULE: ["libcudart.so.12"]}, frozenset({"libcudart.so.12"})) == set()


def test_a_plug_in_that_nothing_links_to_needs_nothing() -> None:
    wheel = {MODULE: ["libc.so.6"], "cv2/qt/plugins/platforms/libqxcb.so": ["libxkbcommon.so.0"]}
    assert external_needs(wheel, frozenset()) == {"libc.so.6"}


def test_libraries_without_a_module_are_loaded_by_somebody() -> None:
    assert external_needs({"torchcodec/libtorchcodec_core7.so": ["libavcodec.so.61"]}, frozenset()) == {
        "libavcodec.so.61"
    }


def test_libraries_that_need_each_other_end() -> None:
    wheel = {"a.abi3.so": ["liba.so"], "x/liba.so": ["libb.so"], "x/libb.so": ["liba.so", "libz.so.9"]}
    assert external_needs(wheel, frozenset()) == {"libz.so.9"}


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("libGL.so.1", "libgl1"),
        ("libgthread-2.0.so.0", "libglib2.0-0"),
        ("libX11.so.6", "libx11-6"),
        ("libsndfile.so.1", "libsndfile1"),
        ("libavcodec.so.58", "ffmpeg"),
        ("libswresample.so.5", "ffmpeg"),
        ("libstrange.so.3", None),
    ],
)
def test_a_library_is_in_a_debian_package(library: str, package: str | None) -> None:
    assert find_debian_package(library) == package


@pytest.mark.parametrize(
    "library", ["libc.so.6", "libstdc++.so.6", "ld-linux-x86-64.so.2", "libcuda.so.1", "libpython3.12.so.1.0"]
)
def test_what_every_image_or_the_driver_has_is_not_proposed(library: str) -> None:
    assert is_in_every_image(library)


def test_what_is_listed_already_is_not_proposed() -> None:
    libraries = {"libGL.so.1": ("cv",), "libX11.so.6": ("cv", "gui"), "libnone.so.1": ("cv",)}
    assert propose_packages(libraries, ["libgl1"]) == {"libx11-6": ("cv", "gui")}
