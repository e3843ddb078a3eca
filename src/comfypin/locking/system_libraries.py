"""Finds the libraries of the system that packages need, in the ELF files of their wheels."""

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from comfypin.lock.debian_packages import find_debian_package, is_in_every_image, propose_packages
from comfypin.lock.model import PackagePin, PythonPins
from comfypin.lock.requirements import normalize_package_name
from comfypin.lock.shared_objects import external_needs, find_roots, has_modules, is_shared_object, read_needs
from comfypin.lock.torch import is_torch_family
from comfypin.locking.wheel_contents import WheelReader
from comfypin.plurals import format_count

# Shared objects of such wheels are kernels for GPUs, hundreds of megabytes that would have to be unpacked.
_MAX_COMPRESSED_BYTES = 128 << 20
# Each part is a request; most modules are smaller.
_PART_BYTES = 2 << 20
# A library is unpacked in memory.
_WORKERS = 4

# In the place of a system package: all that are proposed.
AUTO = "auto"

Note = Mapping[str, Sequence[str]]


def find_libraries(
    pins: Iterable[PackagePin], wheels: WheelReader, report: Callable[[str], None]
) -> dict[str, tuple[str, ...]]:
    """Return the libraries that wheels for Linux need from the system, each with the packages that need it."""
    compiled = [pin for pin in pins if _is_compiled(pin)]
    report(f"reading the libraries that {format_count(len(compiled), 'package')} of compiled code name")
    notes = wheels.map_wheels(compiled, "libraries", _read_libraries, part_bytes=_PART_BYTES, workers=_WORKERS)
    by_package = {
        normalize_package_name(pin.name): cast("Note", note)
        for pin, note in zip(compiled, notes, strict=True)
        if note is not None
    }
    contents, _ = wheels.read_contents(pins)
    provided = frozenset(path.rpartition("/")[2] for wheel in contents for path in wheel.files)
    packages_by_library: dict[str, set[str]] = {}
    for package, needs_by_path in by_package.items():
        for library in external_needs(needs_by_path, provided):
            # A wheel without modules brings its libraries for all kinds of machines, and loads those that fit.
            is_certain = find_debian_package(library) is not None or has_modules(needs_by_path)
            if is_certain and not is_in_every_image(library):
                packages_by_library.setdefault(library, set()).add(package)
    return {library: tuple(sorted(packages)) for library, packages in sorted(packages_by_library.items())}


def note_libraries(python_pins: PythonPins, wheels: WheelReader, report: Callable[[str], None]) -> PythonPins:
    """Return the pins with the libraries that they need from the system."""
    if not any(map(_is_compiled, python_pins.packages)):
        return replace(python_pins, libraries={})
    return replace(python_pins, libraries=find_libraries(python_pins.packages, wheels, report))


def accept_proposals(system_packages: Iterable[str], libraries: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the system packages, with what is proposed in the place of `auto`."""
    names = tuple(system_packages)
    if AUTO not in names:
        return names
    chosen_packages = tuple(package_name for package_name in names if package_name != AUTO)
    return (*chosen_packages, *propose_packages(libraries, chosen_packages))


def library_notes(libraries: Mapping[str, Sequence[str]], system_packages: Iterable[str]) -> list[str]:
    """Return a line about the Debian packages that are missing, and one about libraries that nobody knows."""
    proposed = propose_packages(libraries, system_packages)
    notes = []
    if proposed:
        library_list = "; ".join(
            f"{library_name} for {', '.join(packages)}" for library_name, packages in proposed.items()
        )
        flags = " ".join(f"--system-package {library_name}" for library_name in proposed)
        notes.append(f"an image lacks libraries that packages need ({library_list}); to have them: {flags} (or: auto)")
    unknown = [
        f"{library} for {', '.join(packages)}"
        for library, packages in libraries.items()
        if find_debian_package(library) is None
    ]
    if unknown:
        notes.append(
            f"no Debian package is known here that has: {'; '.join(unknown)}. It is lacking only if a workflow fails "
            "for want of it: some are for other hardware"
        )
    return notes


def _is_compiled(package_pin: PackagePin) -> bool:
    """Return whether a package has a wheel for Linux that has to be looked into."""
    file_name = (package_pin.url or "").partition("#")[0].rpartition("/")[2]
    # Those of torch's family bring each other's libraries, and beside them need only the driver.
    is_for_linux = file_name.endswith(".whl") and "linux" in file_name.rpartition("-")[2]
    return is_for_linux and not is_torch_family(package_pin.name)


def _read_libraries(wheel: zipfile.ZipFile) -> dict[str, list[str]]:
    """Return what each shared object needs that Python loads, directly or through others of the wheel."""
    members = {member.filename: member for member in wheel.infolist() if is_shared_object(member.filename)}
    paths_by_name = {path.rpartition("/")[2]: path for path in members}
    needs_by_path: dict[str, list[str]] = {}
    waiting = set(find_roots(members))
    while waiting:
        # In the file's order: a part that was fetched for one module holds the next ones too.
        for path in sorted(waiting, key=lambda path: members[path].header_offset):
            needs_by_path[path] = _read_member(wheel, members[path])
        reached = {
            paths_by_name[library_name]
            for path in waiting
            for library_name in needs_by_path[path]
            if library_name in paths_by_name
        }
        waiting = reached - needs_by_path.keys()
    return needs_by_path


def _read_member(wheel: zipfile.ZipFile, member: zipfile.ZipInfo) -> list[str]:
    if member.compress_size > _MAX_COMPRESSED_BYTES:
        return []
    try:
        with wheel.open(member) as file:
            return sorted(read_needs(file, member.file_size))
    except ValueError:
        return []  # a text that is called .so, or an object for a machine of 32 bits
