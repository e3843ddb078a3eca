"""An import that needs libGL, in an image without the Debian packages that its lock proposes, and in one with them."""

from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.lock.model import Lock
from comfypin.locking.system_libraries import AUTO, accept_proposals, note_libraries
from comfypin.locking.wheel_contents import WheelReader
from tests.support.containers import BASE, Containers
from tests.support.releases import SmallRelease, resolve_from_pypi, small_release

pytestmark = [
    pytest.mark.needs("dockerd"),
    pytest.mark.needs("mmdebstrap"),
    # opencv-python's own wheel, and Debian's mirror.
    pytest.mark.network,
    pytest.mark.timeout(1500),
    pytest.mark.xdist_group("containers"),
]


def silent(_: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def needing(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallRelease, Lock]:
    """A release with opencv-python, which knows what it needs."""
    release = small_release(tmp_path_factory.mktemp("needing"))
    pins = resolve_from_pypi(["opencv-python"])
    python = replace(release.lock.python, packages=(*release.lock.python.packages, *pins))
    return release, replace(release.lock, python=note_libraries(python, WheelReader(), silent))


@pytest.mark.soak
def test_the_proposed_packages_make_the_import_work(
    daemon: Containers, needing: tuple[SmallRelease, Lock], tmp_path: Path
) -> None:
    release, lock = needing
    assert lock.python.libraries["libGL.so.1"] == ("opencv-python",)
    lacking = import_cv2(daemon, release, lock, tmp_path / "without", "cv2:without")
    # Which of them the linker misses first is its own affair.
    assert ": cannot open shared object file" in lacking
    whole = replace(lock, system_packages=accept_proposals((AUTO,), lock.python.libraries))
    assert import_cv2(daemon, release, whole, tmp_path / "with", "cv2:with").startswith("cv2 ")


def import_cv2(daemon: Containers, release: SmallRelease, lock: Lock, folder: Path, tag: str) -> str:
    """Return what importing it says, in an image of this lock."""
    folder.mkdir()
    path = release.changed(system_packages=lock.system_packages, python=lock.python).write_lock()
    vendor = str(folder / "vendor")
    daemon.comfypin("lock", "vendor", "--lock", str(path), vendor, cwd=folder)
    daemon.build("--release", str(path), "--tag", tag, "--base", BASE, "--vendor", vendor, cwd=folder)
    line = "import cv2; print('cv2', cv2.__version__)"
    done = daemon.run("--entrypoint", "/opt/comfy/venv/bin/python", tag, "-c", line, check=False)
    return done.stdout + done.stderr
