"""Which of a lock's packages belong on a machine."""

from pathlib import Path

import pytest
from packaging.tags import Tag

from comfypin.digest import Digest
from comfypin.env.errors import TargetMissing, WheelUnfit
from comfypin.env.package_selection import (
    Interpreter,
    choose_target,
    list_indexes,
    package_file_name,
    render_requirements,
    select_packages,
)
from comfypin.lock.model import Lock, PackagePin, PythonPins

ZERO = Digest("0" * 64)
HERE = Interpreter(
    path=Path("/usr/bin/python3.12"),
    version="3.12.4",
    cache_tag="cpython-312",
    machine="linux-x86_64",
    tags=frozenset({Tag("py3", "none", "any"), Tag("cp312", "cp312", "manylinux_2_28_x86_64")}),
    markers={"sys_platform": "linux", "python_version": "3.12", "platform_machine": "x86_64"},
)


def a_lock(*packages: PackagePin, targets: tuple[str, ...] = ()) -> Lock:
    return Lock(version_name="x", python=PythonPins(targets={name: {} for name in targets}, packages=packages))


def pin(name: str, file: str | None = None, **changes: object) -> PackagePin:
    url = f"https://example.org/a/{file}" if file else None
    return PackagePin(name=name, version="1.0", url=url, sha256=(ZERO,), **changes)  # type: ignore[arg-type]


def test_the_only_target_that_fits_is_taken() -> None:
    lock = a_lock(targets=("linux-x86_64-cu128", "linux-aarch64"))
    assert choose_target(lock, "linux-x86_64", None) == "linux-x86_64-cu128"


def test_of_two_targets_that_fit_one_must_be_named() -> None:
    lock = a_lock(targets=("linux-x86_64-cu128", "linux-x86_64-cpu"))
    with pytest.raises(TargetMissing, match="--target"):
        choose_target(lock, "linux-x86_64", None)
    assert choose_target(lock, "linux-x86_64", "linux-x86_64-cpu") == "linux-x86_64-cpu"


def test_a_lock_for_other_machines_is_refused() -> None:
    with pytest.raises(TargetMissing, match=r"linux-aarch64\): it was locked for other platforms"):
        choose_target(a_lock(targets=("linux-x86_64",)), "linux-aarch64", None)


def test_a_lock_without_targets_fits_everywhere() -> None:
    assert choose_target(a_lock(), "linux-x86_64", None) is None


def test_markers_and_targets_leave_packages_out() -> None:
    lock = a_lock(
        pin("here", marker="sys_platform == 'linux'"),
        pin("elsewhere", marker="sys_platform == 'win32'"),
        pin("other", target="linux-aarch64"),
        pin("ours", target="linux-x86_64"),
    )
    assert [one.name for one in select_packages(lock, "linux-x86_64", HERE)] == ["here", "ours"]


def test_every_wheel_that_does_not_fit_is_named() -> None:
    lock = a_lock(pin("torch", "torch-1.0-cp311-cp311-win_amd64.whl"), pin("b", "b-1.0-cp310-cp310-linux_x86_64.whl"))
    with pytest.raises(WheelUnfit) as caught:
        select_packages(lock, None, HERE)
    assert "torch 1.0 has torch-1.0-cp311-cp311-win_amd64.whl" in caught.value.message
    assert "b 1.0 has b-1.0-cp310-cp310-linux_x86_64.whl" in caught.value.message


def test_of_several_wheels_the_one_that_fits_is_taken() -> None:
    lock = a_lock(pin("t", "t-1.0-cp311-cp311-win_amd64.whl"), pin("T", "t-1.0-py3-none-any.whl"))
    assert [package_file_name(one) for one in select_packages(lock, None, HERE)] == ["t-1.0-py3-none-any.whl"]


def test_lines_hold_the_url_and_every_digest() -> None:
    wheel = PackagePin(name="a", version="1", url="https://e.org/a-1-py3-none-any.whl", sha256=(ZERO, Digest("1" * 64)))
    line = f"a @ https://e.org/a-1-py3-none-any.whl --hash=sha256:{'0' * 64} --hash=sha256:{'1' * 64}\n"
    assert render_requirements([wheel], {}) == line


def test_a_package_without_a_url_is_asked_of_its_index() -> None:
    wheel = PackagePin(name="a", version="1", sha256=(ZERO,), index="https://e.org/simple")
    assert render_requirements([wheel], {}) == f"a==1 --hash=sha256:{'0' * 64}\n"
    assert list_indexes([wheel]) == ("https://e.org/simple",)


def test_a_file_of_a_vendor_folder_takes_the_place_of_its_url(tmp_path: Path) -> None:
    name = "torch-2.13.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl"
    wheel = PackagePin(name="torch", version="2.13.0", url=f"https://e.org/{name.replace('+', '%2B')}", sha256=(ZERO,))
    assert render_requirements([wheel], {name: tmp_path / name}).startswith(f"torch @ {tmp_path.as_uri()}/torch-2.13.0")
