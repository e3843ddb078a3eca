"""Knows which Debian package has a library (pure).

The names are those of Debian 12, which later releases and Ubuntu still take (`libglib2.0-0` is provided by
`libglib2.0-0t64`). https://packages.debian.org/search?mode=filename
"""

import re
from collections.abc import Iterable, Mapping

# What python:3.12-slim has. A library that is missing there, and that nobody lists below, is named as it is.
_IN_BASE = re.compile(
    r"lib(?:c|m|dl|rt|pthread|util|resolv|nsl|crypt|stdc\+\+|gcc_s|z|expat|ffi|ssl|crypto|bz2|lzma|uuid|sqlite3"
    r"|ncursesw|tinfo|readline|mvec|anl|BrokenLocale|thread_db)\.so.*|ld-linux.*|linux-vdso.*"
)
# The driver's own: NVIDIA's container toolkit brings it from the host. https://docs.nvidia.com/datacenter/cloud-native/
_OF_DRIVER = re.compile(r"lib(?:cuda|nvidia-.*|nvcuvid|nvoptix|cudadebugger)\.so.*")
_PYTHON = re.compile(r"libpython3.*")
# FFmpeg's libraries change their numbers with each release, and come with the program.
_FFMPEG = re.compile(r"lib(?:av(?:codec|format|util|filter|device)|sw(?:scale|resample)|postproc)\.so.*")
_PACKAGES = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libGLX.so.0": "libglx0",
    "libOpenGL.so.0": "libopengl0",
    "libGLESv2.so.2": "libgles2",
    "libGLdispatch.so.0": "libglvnd0",
    "libGLU.so.1": "libglu1-mesa",
    "libOSMesa.so.8": "libosmesa6",
    "libvulkan.so.1": "libvulkan1",
    "libdrm.so.2": "libdrm2",
    "libgbm.so.1": "libgbm1",
    "libX11.so.6": "libx11-6",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1",
    "libXi.so.6": "libxi6",
    "libXt.so.6": "libxt6",
    "libXfixes.so.3": "libxfixes3",
    "libXrandr.so.2": "libxrandr2",
    "libXcursor.so.1": "libxcursor1",
    "libXinerama.so.1": "libxinerama1",
    "libXcomposite.so.1": "libxcomposite1",
    "libXdamage.so.1": "libxdamage1",
    "libXtst.so.6": "libxtst6",
    "libXxf86vm.so.1": "libxxf86vm1",
    "libXau.so.6": "libxau6",
    "libXft.so.2": "libxft2",
    "libSM.so.6": "libsm6",
    "libICE.so.6": "libice6",
    "libxcb.so.1": "libxcb1",
    "libxcb-shm.so.0": "libxcb-shm0",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libwayland-client.so.0": "libwayland-client0",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgobject-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libgio-2.0.so.0": "libglib2.0-0",
    "libgmodule-2.0.so.0": "libglib2.0-0",
    "libgtk-3.so.0": "libgtk-3-0",
    "libgdk-3.so.0": "libgtk-3-0",
    "libgtk-x11-2.0.so.0": "libgtk2.0-0",
    "libcairo.so.2": "libcairo2",
    "libpango-1.0.so.0": "libpango-1.0-0",
    "libpangocairo-1.0.so.0": "libpangocairo-1.0-0",
    "libgdk_pixbuf-2.0.so.0": "libgdk-pixbuf-2.0-0",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libharfbuzz.so.0": "libharfbuzz0b",
    "libdbus-1.so.3": "libdbus-1-3",
    "libsndfile.so.1": "libsndfile1",
    "libportaudio.so.2": "libportaudio2",
    "libasound.so.2": "libasound2",
    "libpulse.so.0": "libpulse0",
    "libsox.so.3": "libsox3",
    "libmpg123.so.0": "libmpg123-0",
    "libgomp.so.1": "libgomp1",
    "libgomp.so.1.0.0": "libgomp1",
    "libgfortran.so.5": "libgfortran5",
    "libquadmath.so.0": "libquadmath0",
    "libatomic.so.1": "libatomic1",
    "libopenblas.so.0": "libopenblas0",
    "libnuma.so.1": "libnuma1",
    "libtbb.so.12": "libtbb12",
    "libxml2.so.2": "libxml2",
    "libjpeg.so.62": "libjpeg62-turbo",
    "libturbojpeg.so.0": "libturbojpeg0",
    "libpng16.so.16": "libpng16-16",
    "libtiff.so.6": "libtiff6",
    "libwebp.so.7": "libwebp7",
    "libmagic.so.1": "libmagic1",
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libcurl.so.4": "libcurl4",
    "libzstd.so.1": "libzstd1",
    "liblz4.so.1": "liblz4-1",
    "libgdbm.so.6": "libgdbm6",
    "libibverbs.so.1": "libibverbs1",
    "librdmacm.so.1": "librdmacm1",
    "libmpi.so.40": "libopenmpi3",
}


def find_debian_package(library: str) -> str | None:
    """Return the package that has a library, None if nobody here knows it.

    >>> find_debian_package("libGL.so.1"), find_debian_package("libavcodec.so.60")
    ('libgl1', 'ffmpeg')
    """
    return "ffmpeg" if _FFMPEG.fullmatch(library) else _PACKAGES.get(library)


def is_in_every_image(library: str) -> bool:
    """Return whether a library comes with Python's own image, with Python, or with the driver of the host."""
    return any(pattern.fullmatch(library) for pattern in (_IN_BASE, _OF_DRIVER, _PYTHON))


def propose_packages(libraries: Mapping[str, Iterable[str]], present: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the Debian packages to add, each with the packages that need it; `present` are listed already."""
    proposed: dict[str, set[str]] = {}
    for library, packages in libraries.items():
        debian_package = find_debian_package(library)
        if debian_package is not None and debian_package not in set(present):
            proposed.setdefault(debian_package, set()).update(packages)
    return {debian_package: tuple(sorted(packages)) for debian_package, packages in sorted(proposed.items())}
